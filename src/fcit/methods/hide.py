"""hide: HiDe-LLaVA (Guo et al. 2025, ACL, arXiv 2503.12941), federated by FedAvg.

A LoRA per stage. Tasks differ in the language model's last layer: there a test sample activates the
LoRAs of the stages whose image and text anchors are like it. In all layers below, the LoRAs of all
stages are merged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from fcit.methods.base import Above0, Gating, TokenKind, newest
from fcit.methods.model import Model
from fcit.methods.tokens import TokenRouted
from fcit.types import Identity, Stage, State, Tensor


@dataclass(frozen=True)
class Hide(TokenRouted):
    """A stage's anchors are the means of frozen CLIP text and image features over its clients' samples:
    identity tokens of both, one per stage. Each stage trains its LoRA alone.

    The merge differs from the published code, which sums the factors: (sum_i B_i) (sum_i A_i), with a
    weight of 1. Here products are summed, sum_i B_i A_i, without the terms B_i A_j of two stages.
    `benchmarks/norms.py` compares the sizes of both with the base weights.
    """

    projector: Literal["shared", "frozen"] = "shared"
    """Not "isolated": the gates differ by layer, and a projector lies in none of the layers."""

    temperature: Above0 = 0.1
    """Temperature of the softmax over a sample's similarities to the anchors."""

    merge: Literal["sum", "mean", "routed"] = "sum"
    """How the stages' LoRAs merge in all layers but the last: `sum`, `mean`, or
    `routed`, weighted as in the last layer."""

    tokens_name: ClassVar[str] = "anchors"

    @property
    def identity(self) -> TokenKind:
        return "both"

    def begin(self, state: State, stage: Stage) -> State:
        """A new LoRA, named by its number."""
        return self.open(state, str(len(state.adapters)))

    @property
    def asked_per(self) -> Literal["task", "stage", "round"]:
        return "stage" if self._asks_as(Hide) else "round"

    def member(self, state: State, client: int, task: str) -> str:
        """Clients are asked once per stage and task what their samples are like."""
        return f"{client}/{task}/{newest(state)}"

    def assign(self, state: State, identities: Sequence[Identity]) -> list[tuple[Identity, int]]:
        """All tokens of a stage make its anchors."""
        return [(identity, int(newest(state))) for identity in identities]

    @property
    def gating(self) -> Gating:
        """softmax((cos(text, anchor) + cos(image, anchor)) / 2 / temperature) over the stages."""
        return Gating("softmax", self.temperature)

    def activate(self, model: Model, shares: Tensor) -> None:
        """The shares gate the last layer's adapters; `merge` gates those of the layers below."""
        each = 1.0 if self.merge == "sum" else 1.0 / shares.shape[1]
        below = shares if self.merge == "routed" else shares.new_full(shares.shape, each)
        last = top(model.layers)
        model.gate = {path: shares if path in last else below for path in model.layers}


def top(paths: Sequence[str]) -> set[str]:
    """Those of the adapted projections' paths, in order of depth, that lie in the last layer."""

    def layer(path: str) -> str:
        parts = path.split(".")
        numbers = [index for index, part in enumerate(parts) if part.isdecimal()]
        return ".".join(parts[: numbers[0] + 1]) if numbers else path

    return {path for path in paths if layer(path) == layer(paths[-1])}
