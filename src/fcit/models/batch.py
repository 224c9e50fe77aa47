"""Training samples and questions as tensors: padded, taken one by one, and with room for prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fcit.models.vision import Seen


@dataclass(frozen=True)
class Batch:
    """Samples as tensors: ids and mask [batch, seq]; labels [batch, seq], -100 where no loss is;
    the image of each sample as the frozen part of the model sees it."""

    ids: Tensor
    mask: Tensor
    labels: Tensor
    images: tuple[Seen, ...]

    def each(self) -> Iterator[Batch]:
        """Every sample as a batch of its own."""
        parts = (self.ids.split(1), self.mask.split(1), self.labels.split(1), self.images)
        return (
            Batch(ids, mask, labels, (one,)) for ids, mask, labels, one in zip(*parts, strict=True)
        )


def collate(
    rows: Sequence[tuple[list[int], list[int]]],
    pad: int,
    images: Sequence[Seen],
    device: torch.device,
) -> Batch:
    """One right-padded batch of (token ids, labels) on a device."""
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), pad)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    labels = torch.full((len(rows), length), -100)
    for row, (tokens, answered) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        labels[row, : len(tokens)] = torch.tensor(answered)
    return Batch(ids.to(device), mask.to(device), labels.to(device), tuple(images))


def make_room(batch: Batch, count: int, image_id: int) -> tuple[Tensor, Tensor, Tensor]:
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
