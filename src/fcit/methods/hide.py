"""hide: HiDe-LLaVA (Guo et al. 2025, ACL, arXiv 2503.12941), federated by FedAvg.

A LoRA per stage. The language model's last layer is where tasks differ: there a test sample opens the
LoRAs of the stages whose image and text anchors are like it. In all layers below, what the stages
learnt is summed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from fcit.methods.base import Method, Model, Query
from fcit.types import FcitError, Identity, Stage, State, Turn, Weights
from fcit.weights import cosine

if TYPE_CHECKING:
    from torch import Tensor

ANCHORS, MEMBERS = "anchors", "members"


@dataclass(frozen=True)
class Hide(Method):
    """temperature: the temperature of the softmax over a sample's similarities to the anchors.

    A stage's anchors are the means of frozen CLIP text and image features over its clients' samples;
    the similarity is the mean of the two cosines. Each stage trains its LoRA alone.
    """

    temperature: float = 0.1

    opens: ClassVar = "layers"

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if not 0 < self.temperature < float("inf"):
            raise FcitError(f"method.temperature: {self.temperature} must be above 0")
        if self.projector == "isolated":
            raise FcitError(
                "method.projector: hide's layers are opened unlike, and a projector lies in none; use "
                "shared"
            )

    @property
    def identity(self) -> Literal["both"]:
        return "both"

    def begin(self, state: State, stage: Stage) -> State:
        """A new LoRA, named by its number."""
        return self.open(state, str(len(state.adapters)))

    def adapter(self, state: State, turn: Turn) -> str:
        return _newest(state)

    # -- anchors -----------------------------------------------------------------------------------

    def unknown(self, state: State, turns: Sequence[Turn]) -> list[Turn]:
        """Every client says once per stage and task what its samples are like."""
        known, stage = state.extras.get(MEMBERS, {}), _newest(state)
        return [turn for turn in turns if _key(turn.client, turn.task.name, stage) not in known]

    def organise(self, state: State, identities: Sequence[Identity]) -> State:
        """The stage's anchors: the running mean of its clients' tokens weighted by sample count."""
        from torch import int64, stack, tensor

        if not identities:
            return state
        stage = _newest(state)
        held = state.extras.get(ANCHORS)
        tokens = list(held["tokens"].unbind(0)) if held else []
        counts = [int(count) for count in held["samples"].unbind(0)] if held else []
        if len(tokens) == int(stage):
            tokens.append(identities[0].token.new_zeros(identities[0].token.shape))
            counts.append(0)
        members: Weights = {}
        for one in sorted(identities, key=lambda one: (one.client, one.task)):
            total = counts[-1] + one.samples
            tokens[-1] = (tokens[-1] * counts[-1] + one.token * one.samples) / total
            counts[-1] = total
            members[_key(one.client, one.task, stage)] = tensor(int(stage))
        anchors = {"tokens": stack(tokens), "samples": tensor(counts, dtype=int64)}
        members = state.extras.get(MEMBERS, {}) | members
        return replace(state, extras=state.extras | {ANCHORS: anchors, MEMBERS: members})

    # -- answers -----------------------------------------------------------------------------------

    def similarities(self, state: State, query: Query) -> Mapping[str, float]:
        """(cos(text, anchor) + cos(image, anchor)) / 2 of every stage."""
        held = state.extras.get(ANCHORS)
        if held is None or query.feature is None:
            return {}
        halves = zip(query.feature[None].chunk(2, -1), held["tokens"].chunk(2, -1), strict=True)
        text, image = (cosine(mine, theirs)[0] for mine, theirs in halves)
        return {str(stage): float(mean) for stage, mean in enumerate((text + image) / 2)}

    def route(self, state: State, query: Query) -> Mapping[str, float]:
        """softmax of the similarities over `temperature`."""
        from torch import tensor

        similarities = self.similarities(state, query)
        shares = (tensor(list(similarities.values())) / self.temperature).softmax(dim=0)
        return dict(zip(similarities, map(float, shares), strict=True))

    def activate(self, model: Model, shares: Tensor) -> None:
        """The shares open the last layer's adapters; below, all of them give everything."""
        last, everything = top(model.layers), shares.new_ones(shares.shape)
        model.gate = {path: shares if path in last else everything for path in model.layers}


def top(paths: Sequence[str]) -> set[str]:
    """Those of the adapted projections' paths, in order of depth, that lie in the last layer."""

    def layer(path: str) -> str:
        parts = path.split(".")
        numbers = [place for place, part in enumerate(parts) if part.isdecimal()]
        return ".".join(parts[: numbers[0] + 1]) if numbers else path

    return {path for path in paths if layer(path) == layer(paths[-1])}


def _newest(state: State) -> str:
    return max(state.adapters, key=int)


def _key(client: int, task: str, stage: str) -> str:
    return f"{client}/{task}/{stage}"
