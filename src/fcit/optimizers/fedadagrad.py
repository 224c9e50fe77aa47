"""fedadagrad: Adagrad on the server, with the round's change as its gradient (Reddi et al. 2021, Adaptive
Federated Optimization, arXiv 2003.00295, Algorithm 2)."""

from dataclasses import dataclass

from fcit.optimizers.adaptive import Adaptive
from fcit.optimizers.base import Fraction
from fcit.types import Tensor


@dataclass(frozen=True)
class Fedadagrad(Adaptive):
    """v = v + Delta^2, without momentum unless beta1 is set."""

    beta1: Fraction = 0.0
    """Decay of the mean change; 0: no momentum."""

    def second(self, v: Tensor, square: Tensor) -> Tensor:
        return v + square
