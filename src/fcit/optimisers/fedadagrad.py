"""fedadagrad: Adagrad on the server, with the round's change as its gradient (Reddi et al. 2021, Adaptive
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
class Fedadagrad(Optimiser):
    """v = v + Delta^2.

    lr: eta, about the size of an entry's step. tau: the smaller, the more alike all entries move.
    beta1, tau: as in section 5.
    """

    lr: float = 1e-3
    beta1: float = 0.0
    tau: float = 1e-3

    def __post_init__(self) -> None:
        check(self.lr, self.tau, beta1=self.beta1)

    def move(self, x: Tensor, mean: Tensor, kept: Weights) -> tuple[Tensor, Weights]:
        rates = (self.lr, self.beta1, self.tau)
        return step(x, mean, kept, rates, lambda v, square: v + square)
