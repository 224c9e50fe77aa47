"""fedprox: clients are held near the model they were sent (Li et al. 2020, Federated Optimization in
Heterogeneous Networks, arXiv 1812.06127, Algorithm 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fcit.optimizers.base import AtLeast0, Groups, Local, Optimizer
from fcit.types import Tensor, Turn, Weights


@dataclass(frozen=True)
class Fedprox(Optimizer):
    """A client minimises F_k(w) + mu/2 ||w - w^t||^2 over all it trains; w^t is what it was sent.

    Losses are logged without the term.
    """

    mu: AtLeast0 = 0.01
    """Weight of the proximal term; 0 is FedAvg. The paper tries 0.001, 0.01, 0.1 and 1."""

    def local(
        self, turn: Turn, trained: Mapping[str, Sequence[Tensor]], received: Groups, memory: Weights
    ) -> Local:
        return Proximal(self.mu, [value for group in trained.values() for value in group])


class Proximal(Local):
    """Adds the proximal term's gradient, mu (w - w^t)."""

    def __init__(self, mu: float, parameters: Sequence[Tensor]):
        self.mu = mu
        self.pairs = [(value, value.detach().clone()) for value in parameters]

    def correct(self) -> None:
        for parameter, start in self.pairs:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - start, alpha=self.mu)
