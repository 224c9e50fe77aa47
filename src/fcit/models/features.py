"""Frozen vision features of an image, and a cache of them, bounded in memory and on disk."""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import time
import uuid
import zlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fcit.types import FcitError, Weights
from fcit.weights import from_bytes, nbytes, to_bytes

MEMORY_BYTES = 512 << 20
"""The most bytes of vision features that a process keeps in memory."""
DISK_BYTES = 4 << 30
"""The most bytes of vision features on disk."""
STALE = 7 * 24 * 3600.0
"""Seconds after which a file of features makes room where the disk cache is full: it may be of a model,
or of versions, that nobody uses any more. What is removed is computed again where it is needed."""

FORMAT = "seen-5"
"""The format of the cached tensors, how images are opened, and in which batches they are encoded; a cache
of another format is not read."""

HEAD = struct.Struct("<4s32sQI")
"""What comes before every image's safetensors in a cache file: a mark, the image's digest, and the number
of bytes and the CRC-32 of what follows."""
MARK = b"fcit"


@dataclass(frozen=True)
class ImageFeatures:
    """One image as it reaches the projector."""

    text: str
    """What stands for the image in a prompt."""
    parts: tuple[Tensor, ...]
    """The input of each part of the projector."""
    inputs: dict[str, Tensor]
    """What the family's code takes beside pixels (grids, sizes, masks)."""
    pixels: tuple[int, ...]
    """The shape of the pixels."""
    plain: bool = True
    """The projector's output already is the embeddings."""
    stacked: bool = False
    """The model takes embeddings as one tensor, not as a list."""
    skip: bool = True
    """The vision tower's layers can be skipped when the family's code runs again."""

    def to(self, device: torch.device) -> ImageFeatures:
        """The same, its tensors on a device."""
        inputs = {name: value.to(device) for name, value in self.inputs.items()}
        return replace(self, parts=tuple(part.to(device) for part in self.parts), inputs=inputs)

    def to_tensors(self) -> Weights:
        """All fields as named tensors, for the cache."""
        flags = [self.plain, self.stacked, self.skip]
        return {
            "text": torch.tensor(list(self.text.encode()), dtype=torch.uint8),
            "form": torch.tensor(flags, dtype=torch.uint8),
            "pixels": torch.tensor(self.pixels),
            **{f"part.{at}": part.contiguous() for at, part in enumerate(self.parts)},
            **{f"input.{name}": value.contiguous() for name, value in self.inputs.items()},
        }

    @staticmethod
    def from_tensors(tensors: Weights) -> ImageFeatures:
        """The inverse of `to_tensors`."""
        count = sum(name.startswith("part.") for name in tensors)
        return ImageFeatures(
            sys.intern(tensors["text"].numpy().tobytes().decode()),  # the same for many images
            tuple(tensors[f"part.{at}"] for at in range(count)),
            {name[6:]: value for name, value in tensors.items() if name.startswith("input.")},
            tuple(tensors["pixels"].tolist()),
            *map(bool, tensors["form"].tolist()),
        )


NO_FACTS = ("_name_or_path", "architectures", "dtype", "transformers_version")
"""Keys of a configuration that say nothing about what a model computes."""

COMPUTE = ("torch", "transformers", "pillow")
"""Packages whose versions may change the bits of features."""


def fingerprint(model: Any, processor: Any) -> str:
    """A digest of all that vision features depend on besides the image: preparation, weights, and what
    computes them."""
    vision = model.get_encoder(modality="image")
    settings = {
        key: value
        for key, value in sorted(vars(processor).items())
        if isinstance(value, int | float | str) and key != "chat_template"
    }
    digest = hashlib.sha256(repr((FORMAT, type(processor).__name__, settings)).encode())
    digest.update(repr(processor.image_processor.to_dict()).encode())
    for config in (model.config, getattr(model.config, "vision_config", None)):
        facts = config.to_dict() if config else {}
        plain = {key for key, value in facts.items() if not isinstance(value, dict)}
        digest.update(repr([(key, facts[key]) for key in sorted(plain - {*NO_FACTS})]).encode())
    device = next(vision.parameters()).device.type
    digest.update(f"{model.dtype} on {device}, {[version(name) for name in COMPUTE]}".encode())
    if device == "cpu":
        kernels = torch.backends.cpu.get_cpu_capability()
        digest.update(f"{kernels}, {torch.get_num_threads()} threads".encode())
    for name, value in vision.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Place(NamedTuple):
    """Where features are on the disk."""

    file: Path
    start: int
    size: int
    checksum: int


class FeatureCache:
    """Features by image content for one frozen model.

    model: its fingerprint, so that another model never reads these features. folder: None, and one that
    this user cannot write (or no longer, as the disk is full), keep them in memory only. The disk cache
    stops growing at `DISK_BYTES`.

    On the disk every process appends to a file of its own and reads those of all. So none waits for
    another, and what a killed process left half-written is never taken for features.
    """

    def __init__(self, model: str, folder: Path | None):
        self.folder = folder / model[:16] if folder and _writable(folder / model[:16]) else None
        self.memory: OrderedDict[str, Weights] = OrderedDict()
        self.bytes_held = 0
        self.computed = 0
        self._places: dict[str, Place] = {}
        self._known: dict[Path, int] = {}
        """How far each file was read."""
        self._own: tuple[int, Path] | None = None
        """The process that appends, and its file."""
        self._on_disk: int | None = None
        self._uncounted = 0

    @staticmethod
    def key(image: bytes) -> str:
        """The key of an image file with these bytes."""
        return hashlib.sha256(image).hexdigest()

    def __contains__(self, key: str) -> bool:
        return key in self.memory or key in self._places

    def get(self, key: str) -> Weights | None:
        """The features of a key, from memory or from the disk; None where they must be computed."""
        if key in self.memory:
            self.memory.move_to_end(key)
            return self.memory[key]
        if key not in self._places:
            return None
        value = _read(self._places[key])
        if value is None:  # the file was removed or damaged
            del self._places[key]
        else:
            self._remember(key, value)
        return value

    def put(self, key: str, value: Weights) -> None:
        """Keep the features of a key."""
        value = {name: tensor.cpu() for name, tensor in value.items()}
        self.computed += 1
        if self.folder and self._fits_on_disk(value):
            self._append(self.folder, key, to_bytes(value))
        self._remember(key, value)

    def refresh(self) -> None:
        """Learn of what other processes have written meanwhile."""
        if self.folder is None or not self.folder.is_dir():
            return
        with os.scandir(self.folder) as entries:
            for entry in entries:
                path = Path(entry.path)
                if path.suffix == ".features" and _size(path) > self._known.get(path, 0):
                    self._learn(path)

    def forget(self) -> None:
        """Empty the memory."""
        self.memory.clear()
        self.bytes_held = 0

    def _learn(self, path: Path) -> None:
        """Note what is in a file beyond what was read of it before."""
        at = self._known.get(path, 0)
        try:
            file = path.open("rb", buffering=0)
        except OSError:  # it has just been removed, or is another user's
            return
        with file:
            end = file.seek(0, os.SEEK_END)
            while at + HEAD.size <= end:
                file.seek(at)
                mark, key, size, checksum = HEAD.unpack(file.read(HEAD.size))
                if mark != MARK or at + HEAD.size + size > end:
                    break  # it is damaged, or still being written
                place = Place(path, at + HEAD.size, size, checksum)
                self._places.setdefault(key.hex(), place)
                at += HEAD.size + size
        self._known[path] = at

    def _append(self, folder: Path, key: str, data: bytes) -> None:
        try:
            if self._own is None or self._own[0] != os.getpid() or not self._own[1].is_file():
                folder.mkdir(parents=True, exist_ok=True)
                self._own = os.getpid(), folder / f"{uuid.uuid4().hex}.features"
            path, checksum = self._own[1], zlib.crc32(data)
            with path.open("ab") as file:
                start = file.tell() + HEAD.size
                file.write(HEAD.pack(MARK, bytes.fromhex(key), len(data), checksum) + data)
        except OSError:  # the disk is full; what is read ends before half of something
            self.folder = self._own = None
            return
        self._places[key] = Place(path, start, len(data), checksum)
        self._known[path] = start + len(data)

    def _remember(self, key: str, value: Weights) -> None:
        self.memory[key] = value
        self.bytes_held += nbytes(value)
        while self.bytes_held > MEMORY_BYTES and len(self.memory) > 1:
            _, dropped = self.memory.popitem(last=False)
            self.bytes_held -= nbytes(dropped)

    def _fits_on_disk(self, value: Weights) -> bool:
        assert self.folder is not None
        size = nbytes(value)
        self._uncounted += size
        if self._on_disk is None or self._uncounted > DISK_BYTES / 100:  # others write, too
            files = self.folder.parent.rglob("*.*")
            self._on_disk = sum(map(_size, files))
            if self._on_disk + size > DISK_BYTES:
                self._on_disk -= sum(map(_removed, self.folder.parent.rglob("*.features")))
            self._uncounted = size
        self._on_disk += size
        return self._on_disk <= DISK_BYTES


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:  # it has just been removed
        return 0


def _removed(file: Path) -> int:
    """The bytes of a file that was not written to for a week, which is removed; 0 for others."""
    try:
        found = file.stat()
        if time.time() - found.st_mtime < STALE:
            return 0
        file.unlink()
    except OSError:  # another process removes it, too, or it is another user's
        return 0
    return found.st_size


def _writable(folder: Path) -> bool:
    """Whether this user can write to a folder, or make it."""
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except PermissionError:  # it is in a folder that this user may not enter
        return False
    return os.access(nearest, os.R_OK | os.W_OK | os.X_OK)


def _read(place: Place) -> Weights | None:
    """The features at a place; None where they are not as they were written."""
    try:
        with place.file.open("rb", buffering=0) as file:
            file.seek(place.start)
            data = file.read(place.size)
        return from_bytes(data) if zlib.crc32(data) == place.checksum else None
    except (OSError, FcitError):
        return None
