"""The adaptive server step that FedAdam, FedYogi and FedAdagrad share (Reddi et al. 2021, Adaptive
Federated Optimization, arXiv 2003.00295, Algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fcit.optimizers.base import Optimizer
from fcit.types import Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Adaptive(Optimizer):
    """Delta = mean - x; m = beta1 m + (1 - beta1) Delta; x + eta m / (sqrt(v) + tau).

    The defaults of beta1 and tau are the paper's. m starts at zero and v at tau^2, without correction for
    the start, as in the paper.
    """

    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Server learning rate: about how far each entry moves in a round."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the mean change."""
    tau: Annotated[float, Field(gt=0)] = 1e-3
    """Adaptivity; the smaller it is, the more alike are the steps of all entries."""

    def second(self, v: Tensor, square: Tensor) -> Tensor:
        """The next v, from Delta^2: in what the three differ."""
        raise NotImplementedError

    def move(self, x: Tensor, mean: Tensor, kept: Weights) -> tuple[Tensor, Weights]:
        delta = mean - x
        m, v = kept.get("m"), kept.get("v")
        m = (1 - self.beta1) * delta if m is None else self.beta1 * m + (1 - self.beta1) * delta
        v = self.second(
            delta.new_full(delta.shape, self.tau**2) if v is None else v, delta.square()
        )
        return x + self.lr * m / (v.sqrt() + self.tau), {"m": m, "v": v}
