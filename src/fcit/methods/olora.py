"""olora: O-LoRA (Wang et al. 2023, Findings of EMNLP, arXiv 2310.14152), federated by FedAvg.

Every stage learns a LoRA of its own in a subspace orthogonal to those of the stages before, which stay
frozen; all of them are summed, in training and in answering.
"""

from dataclasses import dataclass, replace
from typing import Any

from fcit.methods.base import AtLeast0, Method, newest
from fcit.methods.model import Model
from fcit.seeds import torch_stream
from fcit.types import Stage, State, Tensor, Turn, Weights
from fcit.weights import factors, redrawn


@dataclass(frozen=True)
class Olora(Method):
    """The rows of A span what a LoRA reads. Every stage's A is drawn anew: with the one blank block that
    other methods open, two stages' subspaces would be the same at first.
    """

    orthogonality: AtLeast0 = 0.5
    """Weight lambda_1 of the overlap with old stages: the L1 norm of A_t A_i^T, summed over stages i and
    layers."""

    def start(self, blank: Weights, projector: Weights, seed: int = 0) -> State:
        from torch import tensor

        state = super().start(blank, projector, seed)
        return replace(state, extras=state.extras | {"seed": {"seed": tensor(seed)}})

    def begin(self, state: State, stage: Stage) -> State:
        """A new LoRA, named by its number."""
        name = str(len(state.adapters))
        noise = torch_stream(int(state.extras["seed"]["seed"]), "init", "stage", name)
        fresh = redrawn(state.extras["blank"], self.init_std, noise)
        return replace(state, adapters=state.adapters | {name: fresh})

    def adapter(self, state: State, turn: Turn) -> str:
        return newest(state)

    def send(self, state: State, turn: Turn) -> State:
        """All LoRAs: the old ones take part in every answer."""
        return replace(super().send(state, turn), adapters=dict(state.adapters))

    def trains(self, received: State) -> list[str]:
        return [newest(received)]

    def penalty(self, model: Model, received: State, memory: Weights, batch: Any) -> Tensor | float:
        *old, new = (model.live(name) for name in sorted(received.adapters, key=int))
        return self.orthogonality * overlap(new, old) if old else 0.0


def overlap(new: Weights, old: list[Weights]) -> Tensor:
    """Sum over old LoRAs and layers of ||A_new A_old^T||_1 (all entries' absolute values, as in the
    authors' published code); 0 when every row of A_new is orthogonal to every row of every A_old."""
    factors_new = factors(new)
    first, *rest = (
        (factors_new[path][0] @ a.T).abs().sum()
        for block in old
        for path, (a, _) in factors(block).items()
    )
    return sum(rest, start=first)
