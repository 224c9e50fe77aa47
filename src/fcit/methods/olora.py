"""olora: O-LoRA (Wang et al. 2023, Findings of EMNLP, arXiv 2310.14152), federated by FedAvg.

Every stage learns a LoRA of its own in a subspace orthogonal to those of the stages before, which stay
frozen; all of them are summed, in training and in answering.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fcit.methods.base import Method, Model
from fcit.seeds import torch_stream
from fcit.types import FcitError, Stage, State, Turn, Weights
from fcit.weights import factors, redrawn

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Olora(Method):
    """orthogonality: lambda_1, the weight of sum over old stages i and layers of ||A_t A_i^T||_1.

    The rows of A span what a LoRA reads. Every stage's A is drawn anew: with the one blank block that
    other methods open, two stages' subspaces would be the same at first.
    """

    orthogonality: float = 0.5

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if not 0 <= self.orthogonality < float("inf"):
            raise FcitError(f"method.orthogonality: {self.orthogonality} must be 0 or more")

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
        return _newest(state)

    def send(self, state: State, turn: Turn) -> State:
        """All LoRAs: the old ones take part in every answer."""
        return replace(super().send(state, turn), adapters=dict(state.adapters))

    def trains(self, received: State) -> list[str]:
        return [_newest(received)]

    def penalty(self, model: Model, received: State, memory: Weights, batch: Any) -> Tensor | float:
        newest = _newest(received)
        old = [model.live(name) for name in sorted(received.adapters, key=int) if name != newest]
        return self.orthogonality * overlap(model.live(newest), old) if old else 0.0


def overlap(new: Weights, old: list[Weights]) -> Tensor:
    """Sum over old LoRAs and layers of ||A_new A_old^T||_1 (all entries' absolute values, as in the
    authors' published code); 0 when every row of A_new is orthogonal to every row of every A_old."""
    mine = factors(new)
    parts = [
        (mine[path][0] @ theirs.T).abs().sum()
        for block in old
        for path, (theirs, _) in factors(block).items()
    ]
    return sum(parts[1:], start=parts[0])


def _newest(state: State) -> str:
    return max(state.adapters, key=int)
