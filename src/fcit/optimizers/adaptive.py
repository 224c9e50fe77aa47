"""The adaptive server step that FedAdam, FedYogi and FedAdagrad share (Reddi et al. 2021, Adaptive
Federated Optimization, arXiv 2003.00295, Algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcit.optimizers.base import Optimizer, require
from fcit.types import Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Adaptive(Optimizer):
    """Delta = mean - x; m = beta1 m + (1 - beta1) Delta; x + eta m / (sqrt(v) + tau).

    lr: eta, about the size of an entry's step. tau: the smaller, the more alike all entries move. The
    defaults of beta1 and tau are the paper's. m starts at zero and v at tau^2; nothing is corrected
    for the start, as in the paper.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    tau: float = 1e-3

    def __post_init__(self) -> None:
        require("lr", self.lr, 0 < self.lr < float("inf"), "above 0")
        require("tau", self.tau, 0 < self.tau < float("inf"), "above 0")
        for name, value in vars(self).items():
            require(name, value, not name.startswith("beta") or 0 <= value < 1, "from 0 to below 1")

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
