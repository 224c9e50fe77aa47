"""fedavgm: momentum on the server (Hsu et al. 2019, Measuring the Effects of Non-Identical Data
Distribution for Federated Visual Classification, arXiv 1909.06335)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcit.optimizers.base import Optimizer, require
from fcit.types import Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Fedavgm(Optimizer):
    """v <- beta v + Delta and w <- w + eta v, where Delta is the round's average minus w.

    momentum: beta. lr: eta. With momentum 0 and lr 1 it is FedAvg to the bit.
    """

    momentum: float = 0.9
    lr: float = 1.0

    def __post_init__(self) -> None:
        require("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to below 1")
        require("lr", self.lr, 0 < self.lr < float("inf"), "above 0")

    def move(self, x: Tensor, mean: Tensor, kept: Weights) -> tuple[Tensor, Weights]:
        delta = mean - x
        v = self.momentum * kept["v"] + delta if "v" in kept else delta
        # w + eta v, written from the average on, so that eta v = Delta leaves exactly the average
        return mean + (self.lr * v - delta), {"v": v}
