"""fedavgm: momentum on the server (Hsu et al. 2019, Measuring the Effects of Non-Identical Data
Distribution for Federated Visual Classification, arXiv 1909.06335)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fcit.optimizers.base import Optimizer
from fcit.types import Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Fedavgm(Optimizer):
    """v <- beta v + Delta and w <- w + eta v, where Delta is the round's average minus w.

    With momentum 0 and lr 1 it is FedAvg to the bit.
    """

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Server momentum, beta."""
    lr: Annotated[float, Field(gt=0)] = 1.0
    """Server learning rate, eta."""

    def move(self, x: Tensor, mean: Tensor, kept: Weights) -> tuple[Tensor, Weights]:
        delta = mean - x
        v = self.momentum * kept["v"] + delta if "v" in kept else delta
        # w + eta v, written from the average on, so that eta v = Delta leaves exactly the average
        return mean + (self.lr * v - delta), {"v": v}
