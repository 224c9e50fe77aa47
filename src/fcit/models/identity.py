"""The frozen encoder behind identity tokens: features of instructions, of images, or of both."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModel

from fcit.models.encoding import Features
from fcit.models.folders import faults, load_weights, pretrained
from fcit.models.images import open_image, pad_to_square
from fcit.models.processors import MOST_KEYS, version
from fcit.types import FcitError

Kind = Literal["text", "image", "both"]

UNUSED = ("pooler.", "embeddings.position_ids")
"""Tensors that sentence-transformers models may have or lack: their own pooling takes the last states."""

LONGEST = 1024
"""The longest text, in tokens, that is tried when an encoder is loaded."""


def _read(loader: Any, folder: str | Path, **options: Any) -> Any:
    if loader is AutoModel:
        return load_weights(loader, folder, "identity", UNUSED, **options)
    return pretrained(loader, folder, "identity", **options)


class Encoder:
    """A frozen encoder in one process (Guo et al. 2025, section 4.2: CLIP ViT-L/14-336, 768-d, 77 tokens;
    others are ours).

    The features of a prompt or image are computed once per process and kept in `cache`. kind: what is
    asked of it. Raises FcitError where the folder holds no encoder that is understood, or one that cannot
    make such features.
    """

    def __init__(self, folder: str | Path, device: str = "cpu", kind: Kind = "text"):
        self.folder = folder
        with faults(folder, "identity", ()):  # what is refused names its file
            self.features = Features(folder, device, _read)
            self._require(kind)
            long = "a " * self.features.length if self.features.length <= LONGEST else "a"
            if not self.features.texts([long]).isfinite().all():
                raise ValueError("its text features are not finite numbers")
        self.cache: dict[str | tuple[Path, int, int], Tensor] = {}

    def _require(self, kind: Kind) -> None:
        if refusal := self.features.encoding.refusal(kind):
            raise FcitError(f"[model] identity: {self.folder} {refusal}")

    def embed(self, kind: Kind, prompts: Sequence[str], images: Sequence[Path]) -> Tensor:
        """One row per sample: text features [n, d], image features [n, d], or both [n, 2d]."""
        self._require(kind)
        if kind == "text":
            return self.text(prompts)
        if kind == "image":
            return self.image(images)
        return torch.cat([self.text(prompts), self.image(images)], dim=1)

    def text(self, prompts: Sequence[str]) -> Tensor:
        """Text features [n, d] of instructions, cut at the encoder's length."""
        return self._rows(self.features.texts, prompts)

    def image(self, images: Sequence[Path]) -> Tensor:
        """Image features [n, d] of image files."""
        return self._rows(self._images, [version(path) for path in images])

    def _rows(self, compute: Callable[[Any], Tensor], keys: Sequence[Any]) -> Tensor:
        if len(self.cache) > MOST_KEYS:
            self.cache.clear()
        if new := [key for key in dict.fromkeys(keys) if key not in self.cache]:
            self.cache |= zip(new, compute(new), strict=True)
        return torch.stack([self.cache[key] for key in keys])

    def _images(self, versions: Sequence[tuple[Path, int, int]]) -> Tensor:
        return self.features.images(pad_to_square(open_image(path)) for path, *_ in versions)
