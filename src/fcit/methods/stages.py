"""LoraPerStage: the base of methods that train a new LoRA in every stage (O-LoRA, FedProTIP)."""

from dataclasses import dataclass, replace
from typing import Literal

from fcit.methods.base import Method, newest
from fcit.seeds import torch_stream
from fcit.types import Stage, State, Turn, Weights
from fcit.weights import redrawn

SEED = "seed"


@dataclass(frozen=True)
class LoraPerStage(Method):
    """The LoRAs of earlier stages are frozen, and all of them are summed, in training and in answering.

    Every stage's A is drawn anew: with the one blank block that other methods open, two stages' subspaces
    would be the same at first.
    """

    projector: Literal["shared", "frozen"] = "shared"
    """Not "isolated" or "lora": LoRAs are summed, but projectors could only be averaged, so that a new
    stage would change old answers before it trained anything."""

    def start(self, blank: Weights, projector: Weights, seed: int = 0) -> State:
        from torch import tensor

        state = super().start(blank, projector, seed)
        return replace(state, extras=state.extras | {SEED: {SEED: tensor(seed)}})

    def begin(self, state: State, stage: Stage) -> State:
        """A new LoRA, named by its number."""
        name = str(len(state.adapters))
        noise = torch_stream(self.seed(state), "init", "stage", name)
        fresh = redrawn(state.extras["blank"], self.init_std, noise)
        return replace(state, adapters=state.adapters | {name: fresh})

    def seed(self, state: State) -> int:
        """The run's seed."""
        return int(state.extras[SEED][SEED])

    def adapter(self, state: State, turn: Turn) -> str:
        return newest(state)

    def send(self, state: State, turn: Turn) -> State:
        """All LoRAs: the old ones take part in every answer."""
        return replace(super().send(state, turn), adapters=dict(state.adapters))

    def trains(self, received: State) -> list[str]:
        return [newest(received)]
