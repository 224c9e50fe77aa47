"""Which adapters answer a question: a question's identity feature, and the gating function."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fcit.types import FcitError, Tensor, check_fields


@dataclass(frozen=True)
class Query:
    """A test instruction that asks for adapters."""

    dataset: str
    """The dataset it belongs to; "" where nobody knows, as in a chat."""

    feature: Tensor | None
    """Its identity feature [d]; None where the method has no identity tokens."""


@dataclass(frozen=True)
class Gating:
    """The gating function: how similarities become activation factors. `Method.route` computes it and
    `fcit export --all` writes it to router.json, so that the two cannot differ."""

    gate: Literal["concat", "softmax", "argmax", "cosine", "choose"] = "concat"
    """"concat": every adapter gives 1. "softmax": the softmax of cosines over the temperature. "argmax":
    only the most similar. "cosine": the cosines. "choose": only the adapter named like the dataset."""

    temperature: float = 0.0

    slots: int = 0
    """Softmax: how many similarities take part at least; those of missing adapters are 0."""

    def __post_init__(self) -> None:
        check_fields(self, "Gating")
        if self.gate == "softmax" and self.temperature <= 0:
            raise FcitError("Gating.temperature: must be above 0 for a softmax")

    def shares(
        self, adapters: Iterable[str], similarities: Mapping[str, float], dataset: str
    ) -> dict[str, float]:
        """How much each adapter gives. Raises FcitError when a dataset has no adapter to choose."""
        from torch import cat, tensor

        if self.gate == "choose":
            chosen = {name: float(name == dataset) for name in adapters}
            if dataset not in chosen:
                raise FcitError(
                    f"this method answers questions of its own datasets only: {', '.join(chosen)}"
                )
            return chosen
        if self.gate == "concat":
            return dict.fromkeys(similarities or adapters, 1.0)
        if self.gate == "cosine" or not similarities:
            return dict(similarities)
        cosines = tensor(list(similarities.values()))
        if self.gate == "softmax":
            empty = cosines.new_zeros(max(0, self.slots - len(cosines)))
            shares = (cat([cosines, empty]) / self.temperature).softmax(dim=0)[: len(cosines)]
        else:
            shares = (cosines == cosines.max()).to(cosines.dtype)
            shares = shares / shares.sum()
        return dict(zip(similarities, map(float, shares), strict=True))
