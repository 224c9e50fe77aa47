"""A cache of frozen vision features: bounded in memory, bounded on disk, a safetensors file per image."""

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fcit.types import Weights
from fcit.weights import load, nbytes, save

MEMORY_BYTES = 512 << 20
"""The most bytes of vision features that a process keeps in memory."""
DISK_BYTES = 4 << 30
"""The most bytes of vision features on disk."""

FORMAT = "seen-2"
"""The format of the cached tensors, and how images are opened; a cache of another format is not read."""


def fingerprint(model: Any, processor: Any) -> str:
    """A digest of all that vision features depend on besides the image: preparation and weights."""
    vision = model.get_encoder(modality="image")
    settings = {
        key: value
        for key, value in sorted(vars(processor).items())
        if isinstance(value, int | float | str) and key != "chat_template"
    }
    digest = hashlib.sha256(repr((FORMAT, type(processor).__name__, settings)).encode())
    digest.update(repr(processor.image_processor.to_dict()).encode())
    digest.update(repr(getattr(model.config, "vision_feature_layer", None)).encode())
    digest.update(str(model.dtype).encode())
    for name, value in vision.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class FeatureCache:
    """Features by image content for one frozen model.

    model: its fingerprint, so that another model never reads these features. folder: None keeps them in
    memory only. The disk cache stops growing at `disk_bytes`.
    """

    def __init__(
        self,
        model: str,
        folder: Path | None,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
    ):
        self.folder = folder / model[:16] if folder else None
        self.memory_bytes, self.disk_bytes = memory_bytes, disk_bytes
        self.memory: OrderedDict[str, Weights] = OrderedDict()
        self.bytes_held = 0
        self.computed = 0
        self._on_disk: int | None = None

    @staticmethod
    def key(image: bytes) -> str:
        """The key of an image file with these bytes."""
        return hashlib.sha256(image).hexdigest()

    def __contains__(self, key: str) -> bool:
        path = self._path(key)
        return key in self.memory or (path is not None and path.is_file())

    def get(self, key: str, compute: Callable[[], Weights]) -> Weights:
        """The features of a key: from memory, from disk, or computed and cached."""
        if key in self.memory:
            self.memory.move_to_end(key)
            return self.memory[key]
        path = self._path(key)
        if path and path.is_file():
            value = load(path)
        else:
            value = {name: tensor.cpu() for name, tensor in compute().items()}
            self.computed += 1
            if path and self._fits_on_disk(value):
                save(path, value, durable=False)
        self._remember(key, value)
        return value

    def _path(self, key: str) -> Path | None:
        return self.folder / key[:2] / f"{key}.safetensors" if self.folder else None

    def forget(self) -> None:
        """Empty the memory."""
        self.memory.clear()
        self.bytes_held = 0

    def _remember(self, key: str, value: Weights) -> None:
        self.memory[key] = value
        self.bytes_held += nbytes(value)
        while self.bytes_held > self.memory_bytes and len(self.memory) > 1:
            _, dropped = self.memory.popitem(last=False)
            self.bytes_held -= nbytes(dropped)

    def _fits_on_disk(self, value: Weights) -> bool:
        assert self.folder is not None
        if self._on_disk is None:
            self._on_disk = 0
            for file in self.folder.parent.rglob("*.safetensors"):
                with contextlib.suppress(FileNotFoundError):  # another process may be renaming
                    self._on_disk += file.stat().st_size
        self._on_disk += nbytes(value)
        return self._on_disk <= self.disk_bytes
