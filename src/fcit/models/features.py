"""Frozen vision features, computed once: a bounded memory and a bounded disk cache in front."""

from __future__ import annotations

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fcit.types import Weights
from fcit.weights import load, nbytes, save

CACHE = 512 << 20
"""Bytes of vision features that a process keeps in memory at most."""

FORM = "seen-1"
"""The form of what is kept: another form never reads it."""


def fingerprint(model: Any, processor: Any) -> str:
    """A digest of all that a vision feature depends on beside the image: preparation and weights."""
    vision = model.get_encoder(modality="image")
    settings = {
        key: value
        for key, value in sorted(vars(processor).items())
        if isinstance(value, int | float | str) and key != "chat_template"
    }
    digest = hashlib.sha256(repr((FORM, type(processor).__name__, settings)).encode())
    digest.update(repr(processor.image_processor.to_dict()).encode())
    digest.update(repr(getattr(model.config, "vision_feature_layer", None)).encode())
    digest.update(str(model.dtype).encode())
    for name, value in vision.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class FeatureCache:
    """Features by image content for one frozen model.

    `model` names the frozen weights, so that another model never reads these features. `folder` None
    keeps them in memory alone. The disk cache stops growing at `disk_bytes`.
    """

    def __init__(
        self,
        model: str,
        folder: Path | None,
        memory_bytes: int = CACHE,
        disk_bytes: int = 4 << 30,
    ):
        self.folder = folder / model[:16] if folder else None
        self.model = model
        self.memory_bytes, self.disk_bytes = memory_bytes, disk_bytes
        self.memory: OrderedDict[str, Weights] = OrderedDict()
        self.held = 0
        self.computed = 0
        self._on_disk: int | None = None

    @staticmethod
    def key(image: bytes) -> str:
        """What an image file's bytes are known by."""
        return hashlib.sha256(image).hexdigest()

    def holds(self, key: str) -> bool:
        """Whether nothing would be computed for a key now."""
        path = self._path(key)
        return key in self.memory or (path is not None and path.is_file())

    def get(self, key: str, compute: Callable[[], Weights]) -> Weights:
        """The features of a key, from memory, from disk, or computed and kept."""
        if key in self.memory:
            self.memory.move_to_end(key)
            return self.memory[key]
        path = self._path(key)
        if path and path.is_file():
            value = load(path)
        else:
            value = {name: tensor.cpu() for name, tensor in compute().items()}
            self.computed += 1
            if path and self._room(value):
                save(path, value, durable=False)
        self._remember(key, value)
        return value

    def _path(self, key: str) -> Path | None:
        return self.folder / key[:2] / f"{key}.safetensors" if self.folder else None

    def forget(self) -> None:
        """Drop what is in memory."""
        self.memory.clear()
        self.held = 0

    def _remember(self, key: str, value: Weights) -> None:
        self.memory[key] = value
        self.held += nbytes(value)
        while self.held > self.memory_bytes and len(self.memory) > 1:
            _, dropped = self.memory.popitem(last=False)
            self.held -= nbytes(dropped)

    def _room(self, value: Weights) -> bool:
        assert self.folder is not None
        if self._on_disk is None:
            self._on_disk = 0
            for file in self.folder.parent.rglob("*.safetensors"):
                with contextlib.suppress(FileNotFoundError):  # another process may be renaming
                    self._on_disk += file.stat().st_size
        self._on_disk += nbytes(value)
        return self._on_disk <= self.disk_bytes
