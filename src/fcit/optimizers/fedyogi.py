"""fedyogi: Yogi on the server, with the round's change as its gradient (Reddi et al. 2021, Adaptive
Federated Optimization, arXiv 2003.00295, Algorithm 2)."""

from dataclasses import dataclass

from fcit.optimizers.adaptive import Adaptive
from fcit.optimizers.base import Fraction
from fcit.types import Tensor


@dataclass(frozen=True)
class Fedyogi(Adaptive):
    """v = v - (1 - beta2) Delta^2 sign(v - Delta^2): v grows as in Adam but falls slowly."""

    beta2: Fraction = 0.99
    """Decay of the mean squared change."""

    def second(self, v: Tensor, square: Tensor) -> Tensor:
        return v - (1 - self.beta2) * square * (v - square).sign()
