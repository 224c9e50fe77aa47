"""fedyogi: Yogi on the server, with the round's change as its gradient (Reddi et al. 2021, Adaptive
Federated Optimization, arXiv 2003.00295, Algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcit.optimisers.adaptive import check, step
from fcit.optimisers.base import Optimiser
from fcit.types import Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Fedyogi(Optimiser):
    """v = v - (1 - beta2) Delta^2 sign(v - Delta^2): v grows as in Adam but falls slowly.

    lr: eta, about the size of an entry's step. tau: the smaller, the more alike all entries move.
    beta1, beta2, tau: as in section 5.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        check(self.lr, self.tau, beta1=self.beta1, beta2=self.beta2)

    def move(self, x: Tensor, mean: Tensor, kept: Weights) -> tuple[Tensor, Weights]:
        rates, beta2 = (self.lr, self.beta1, self.tau), self.beta2

        def second(v: Tensor, square: Tensor) -> Tensor:
            return v - (1 - beta2) * square * (v - square).sign()

        return step(x, mean, kept, rates, second)
