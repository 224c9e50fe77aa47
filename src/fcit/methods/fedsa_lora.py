"""fedsa_lora: FedSA-LoRA (Guo et al. 2025, ICLR, Selective Aggregation for Low-Rank Adaptation in
Federated Learning, arXiv 2410.01463).

Clients train A and B, and share A alone: the server averages A (FedAvg), and every client keeps its own
B in its memory, from turn to turn.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from fcit.methods.base import Method
from fcit.methods.model import Model
from fcit.types import State, Turn, Weights
from fcit.weights import UP, ending

OWN = "each client keeps a B of its own"


@dataclass(frozen=True)
class FedsaLora(Method):
    """The paper evaluates every client's own model. Here test sets belong to nobody, so a global B is
    needed to answer them: in a stage's last round, clients also send their B, for answers only, and the
    server keeps their mean by sample count. That round therefore has finetune's bytes, also on the way
    down (the wire's changes start from the global B); in all others A and the projector travel. Until
    the first stage ends the global B is zero, and a client that is drawn first starts from zero too.
    """

    excludes: ClassVar[Mapping[str, str]] = {
        "product": OWN,
        "ranks": OWN,
        **dict.fromkeys(("scaffold", "fedavgm", "fedadam", "fedyogi", "fedadagrad"), OWN),
    }

    def send(self, state: State, turn: Turn) -> State:
        """A; in a stage's last round also the global B, which the client answers with its own."""
        sent = super().send(state, turn)
        if turn.last:
            return sent
        adapters = {name: ending(block, UP, negate=True) for name, block in sent.adapters.items()}
        return replace(sent, adapters=adapters)

    def complete(self, model: Model, received: State, memory: Weights) -> State:
        """With the client's own B."""
        own = memory or ending(model.blank(self.rank), UP)
        adapters = {name: block | own for name, block in received.adapters.items()}
        return replace(received, adapters=adapters)

    def report(
        self, model: Model, received: State, memory: Weights, batches: Iterable[Any]
    ) -> tuple[dict[str, Weights], Weights]:
        """The client's B is its memory."""
        extras, _ = super().report(model, received, memory, batches)
        own = ending(model.live("0"), UP)
        return extras, {key: value.detach().cpu().clone() for key, value in own.items()}
