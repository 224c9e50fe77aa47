"""Open an image for a model: whole, in RGB, and padded to a square where the model was trained so."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL import Image

from fcit.types import FcitError

T = TypeVar("T")

MEAN = (122, 116, 104)
"""CLIP's mean colour, which LLaVA-1.5 pads with."""


def read(path: Path) -> bytes:
    """An image file's bytes. Raises FcitError naming the file when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _at_fault(path, error) from None


def open_image(source: Path | io.BytesIO, name: Path, square: bool = True) -> Image.Image:
    """Decode an image fully. Raises FcitError naming the file when it cannot be read or decoded."""
    try:
        with Image.open(source) as image:
            image.load()
            rgb = image.convert("RGB")
    except Exception as error:  # Pillow raises nearly anything on a broken file
        raise _at_fault(name, error) from None
    side = max(rgb.size)
    if not square or rgb.size == (side, side):
        return rgb
    padded = Image.new("RGB", (side, side), MEAN)
    padded.paste(rgb, ((side - rgb.width) // 2, (side - rgb.height) // 2))
    return padded


def measure(path: Path) -> tuple[int, int]:
    """An image's width and height, from its header. Raises FcitError as `open_image` does."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # as above
        raise _at_fault(path, error) from None


def _at_fault(path: Path, error: Exception) -> FcitError:
    if isinstance(error, OSError) and error.strerror:  # Pillow's own have none
        return FcitError(f"{path}: image cannot be read: {error.strerror}")
    return FcitError(f"{path}: image cannot be decoded: {error}")


def ahead(do: Callable[[Path], T], paths: Sequence[Path]) -> Iterator[T]:
    """What `do` makes of every path, in order: of the next one, by a thread, while one is used."""
    if len(paths) < 2:
        yield from map(do, paths)
        return
    with ThreadPoolExecutor(1) as thread:
        waiting = deque[Future[T]]()
        for path in paths:
            waiting.append(thread.submit(do, path))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
