"""The server step that FedAdam, FedYogi and FedAdagrad share (Reddi et al. 2021, Adaptive Federated
Optimization, arXiv 2003.00295, Algorithm 2)."""

from dataclasses import dataclass

from fcit.optimizers.base import Above0, Fraction, Optimizer
from fcit.types import Tensor, Weights


@dataclass(frozen=True)
class Adaptive(Optimizer):
    """Delta = mean - x; m = beta1 m + (1 - beta1) Delta; x + eta m / (sqrt(v) + tau).

    The defaults of beta1 and tau are the paper's. m starts at zero and v at tau^2, without correction for
    the start, as in the paper.
    """

    lr: Above0 = 1e-3
    """Server learning rate: about how far each entry moves in a round."""

    beta1: Fraction = 0.9
    """Decay of the mean change."""

    tau: Above0 = 1e-3
    """Added to the denominator. Small: every entry moves about `lr`. Large: steps follow the size of
    the change."""

    def second(self, v: Tensor, square: Tensor) -> Tensor:
        """The next v, from Delta^2: the three optimizers differ in this."""
        raise NotImplementedError

    def move(self, x: Tensor, mean: Tensor, slots: Weights) -> tuple[Tensor, Weights]:
        delta = mean - x
        m, v = slots.get("m"), slots.get("v")
        m = (1 - self.beta1) * delta if m is None else self.beta1 * m + (1 - self.beta1) * delta
        v = delta.new_full(delta.shape, self.tau**2) if v is None else v
        v = self.second(v, delta.square())
        return x + self.lr * m / (v.sqrt() + self.tau), {"m": m, "v": v}
