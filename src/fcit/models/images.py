"""The one place that opens image files: decoded to RGB, measured, padded, and read ahead by a thread."""

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from fcit.types import FcitError

T = TypeVar("T")

MEAN_COLOR = (122, 116, 104)
"""CLIP's mean color, which LLaVA-1.5 pads with."""


class ImageTooLargeError(FcitError):
    """The image has more pixels than allowed."""


def open_image(
    source: Path | bytes,
    name: Path | str = "",
    formats: tuple[str, ...] | None = None,
    max_pixels: float = float("inf"),
) -> Image.Image:
    """Decode an image file, given as a path or as its bytes, to RGB.

    name: what errors call it (default: the path). formats: Pillow's names of the formats allowed.
    max_pixels: the limit after padding to a square, checked before decoding. Raises ImageTooLargeError
    above it, and FcitError when the file cannot be read or decoded.
    """
    with _opened(source, name, formats) as image:
        if max(image.size) ** 2 > max_pixels:
            raise Image.DecompressionBombError(f"more than {max_pixels:g} when padded to a square")
        image.load()
        return image.convert("RGB")


def image_size(path: Path) -> tuple[int, int]:
    """An image's width and height, from its header. Raises FcitError as `open_image` does."""
    with _opened(path) as image:
        return image.size


def read_image(path: Path) -> bytes:
    """An image file's bytes. Raises FcitError naming the file when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FcitError(f"{path}: image cannot be read: {error.strerror}") from None


def pad_to_square(image: Image.Image) -> Image.Image:
    """The image in the middle of a square of the mean color."""
    side = max(image.size)
    if image.size == (side, side):
        return image
    padded = Image.new("RGB", (side, side), MEAN_COLOR)
    padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return padded


def read_ahead(function: Callable[[Path], T], paths: Sequence[Path]) -> Iterator[T]:
    """The results of `function` for every path, in order. A thread computes the next one while the
    caller uses the current one."""
    if len(paths) < 2:
        yield from map(function, paths)
        return
    with ThreadPoolExecutor(1) as thread:
        current = thread.submit(function, paths[0])
        for path in paths[1:]:
            following = thread.submit(function, path)
            yield current.result()
            current = following
        yield current.result()


@contextmanager
def _opened(
    source: Path | bytes, name: Path | str = "", formats: tuple[str, ...] | None = None
) -> Iterator[Image.Image]:
    """The opened image; whatever goes wrong with it is a FcitError."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    label = str(name) or ("" if isinstance(source, bytes) else str(source))
    start = f"{label}: image" if label else "image"
    try:
        with Image.open(file, formats=formats) as image:
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"{start} has too many pixels: {error}") from None
    except UnidentifiedImageError:
        raise FcitError(f"{start} cannot be decoded: unknown or damaged format") from None
    except Exception as error:  # Pillow raises nearly anything on a broken file
        if isinstance(error, OSError) and error.strerror:  # Pillow's own errors have none
            raise FcitError(f"{start} cannot be read: {error.strerror}") from None
        raise FcitError(f"{start} cannot be decoded: {error}") from None
