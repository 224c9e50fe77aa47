"""Samples as padded tensors."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fcit.models.features import ImageFeatures
from fcit.types import FcitError

TYPES = ("mm_token_type_ids", "token_type_ids")
"""Names of the tensor that tells image tokens from words, by family."""


@dataclass(frozen=True)
class Batch:
    """Samples as tensors [batch, seq], and their images."""

    ids: Tensor
    mask: Tensor
    labels: Tensor
    """The token ids that carry loss; -100 elsewhere."""
    images: tuple[ImageFeatures, ...]

    def each(self) -> Iterator[Batch]:
        """Every sample as a batch of its own."""
        rows = zip(self.ids, self.mask, self.labels, self.images, strict=True)
        return (
            Batch(ids[None], mask[None], labels[None], (image,))
            for ids, mask, labels, image in rows
        )


def collate(
    rows: Sequence[tuple[Tensor, ...]],
    pad: int,
    images: Sequence[ImageFeatures],
    device: torch.device,
) -> Batch:
    """One right-padded batch of (token ids, labels) on a device."""

    def padded(rows: Iterable[Tensor], value: int) -> Tensor:
        whole = [row.long() for row in rows]
        return pad_sequence(whole, batch_first=True, padding_value=value).to(device)

    ids, labels = zip(*rows, strict=True)
    mask = padded(map(torch.ones_like, ids), 0)
    return Batch(padded(ids, pad), mask, padded(labels, -100), tuple(images))


def add_image_tokens(batch: Batch, count: int, image_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and labels with `count` more image tokens before each row's first one."""
    first = (batch.ids == image_id).int().argmax(dim=1).tolist()

    def insert(rows: Tensor, value: int) -> Tensor:
        return torch.stack(
            [
                torch.cat([row[:at], row.new_full((count,), value), row[at:]])
                for row, at in zip(rows, first, strict=True)
            ]
        )

    return insert(batch.ids, image_id), insert(batch.mask, 1), insert(batch.labels, -100)


def known_arguments(model: Any) -> set[str]:
    """The names of what a family's forward pass takes. Raises FcitError where it tells image tokens in a
    way that is not known here: they would be taken for words."""
    names = set(inspect.signature(model.base_model.forward).parameters)
    if odd := {name for name in names if name.endswith("token_type_ids")} - {*TYPES}:
        raise FcitError(
            f"[model] path: {model.config.model_type} needs {', '.join(sorted(odd))}, which fcit does "
            "not make"
        )
    return names


def token_types(ids: Tensor, labels: Tensor, image_id: int, family: str) -> Tensor:
    """1 for image tokens; for PaliGemma, 1 for the answer's tokens and all after them."""
    if family == "paligemma":
        return ((labels != -100).cumsum(dim=1) > 0).long()
    return (ids == image_id).long()
