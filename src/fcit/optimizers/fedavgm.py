"""fedavgm: momentum on the server (Hsu et al. 2019, Measuring the Effects of Non-Identical Data
Distribution for Federated Visual Classification, arXiv 1909.06335)."""

from dataclasses import dataclass

from fcit.optimizers.base import Above0, Fraction, Optimizer
from fcit.types import Tensor, Weights


@dataclass(frozen=True)
class Fedavgm(Optimizer):
    """v <- beta v + Delta and w <- w + eta v, where Delta is the round's average minus w.

    With momentum 0 and lr 1 it is FedAvg to the bit.
    """

    momentum: Fraction = 0.9
    """Server momentum, beta."""

    lr: Above0 = 1.0
    """Server learning rate, eta."""

    def move(self, x: Tensor, mean: Tensor, slots: Weights) -> tuple[Tensor, Weights]:
        delta = mean - x
        v = self.momentum * slots["v"] + delta if "v" in slots else delta
        # w + eta v, written as average + difference: eta v = Delta gives exactly the average
        return mean + (self.lr * v - delta), {"v": v}
