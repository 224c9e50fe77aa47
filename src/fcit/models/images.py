"""The one place that opens image files: decoded to 8-bit RGB, measured, padded, and read ahead by a
thread. Data checks, imports, runs, reports, `fcit chat` and `fcit serve` all see what it gives."""

import errno
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from fcit.types import FcitError, first_line

T = TypeVar("T")

MEAN_COLOR = (122, 116, 104)
"""CLIP's mean color, which LLaVA-1.5 pads with."""


MOST_PIXELS = 178_956_970
"""The most pixels of an image after padding to a square: as many as Pillow decodes at all."""


class ImageTooLargeError(FcitError):
    """The image has more pixels than allowed."""


def open_image(
    source: Path | bytes,
    name: Path | str = "",
    formats: tuple[str, ...] | None = None,
    max_pixels: int = MOST_PIXELS,
) -> Image.Image:
    """Decode an image file, given as a path or as its bytes, to 8-bit RGB, as viewers show it.

    Of several frames it is the first. It is turned as its EXIF orientation says, transparent parts become
    white, and 16-bit levels are scaled to 8 bits. name: what errors call it (default: the path). formats:
    Pillow's names of the formats allowed. max_pixels: the limit after padding to a square, checked before
    decoding. Raises ImageTooLargeError above it, and FcitError when the file cannot be read or decoded,
    or holds numbers without a known range (32 bits, signed, floats).
    """
    with _opened(source, name, formats, max_pixels) as image:
        image.load()
        seen, turn = _eight_bits(image), _TURNS.get(_orientation(image))
        return seen if turn is None else seen.transpose(turn)


def image_size(path: Path) -> tuple[int, int]:
    """The width and height that `open_image` gives, from the header. Raises FcitError as it does."""
    with _opened(path) as image:
        width, height = image.size
        turned = image.format != "TIFF" and _orientation(image) > 4  # Pillow turns TIFF by itself
        return (height, width) if turned else (width, height)


def read_image(path: Path) -> bytes:
    """An image file's bytes. Raises FcitError naming the file when it cannot be read."""
    with _faults(f"{path}: image"):
        _check_file(path)
        return path.read_bytes()


_FRAMES = (
    (b"\xff\xd8\xff", b"\xff\xd9"),
    (b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"),
    (b"GIF8", b"\0;"),
)
"""How files of JPEG, PNG and GIF begin and end."""


def is_whole(path: Path) -> bool:
    """Whether a file begins and ends as a JPEG, PNG or GIF does. Reads a few bytes; decodes nothing."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            file.seek(-12, os.SEEK_END)
            tail = file.read(12)
    except OSError:  # it is missing, or has less than 12 bytes
        return False
    return any(head.startswith(start) and tail.endswith(end) for start, end in _FRAMES)


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


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation. (Pillow's own `exif_transpose` also writes the
EXIF data anew, which fails where one of its fields is odd.)"""


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or the EXIF data are damaged."""
    try:
        # A PNG's own `getexif` decodes the whole image to look for EXIF data after it.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises nearly anything on broken data
        return 1
    return value if value in range(1, 9) else 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """A decoded image as RGB: levels scaled to 8 bits, transparent parts white."""
    clear: Any = image.info.get("transparency")
    tags: Any = getattr(image, "tag_v2", {})  # of a TIFF
    bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
    if bits < 32 and 2 in tags.get(ExifTags.Base.SampleFormat, ()):
        raise ValueError(
            "signed pixels have no known range; window them to 8 bits, or save them unsigned"
        )
    planes = tags.get(ExifTags.Base.PlanarConfiguration) == 2 and len(image.getbands()) > 1
    if planes and bits == 16 and image.info.get("compression") == "raw":
        raise ValueError("16-bit channels in separate planes are not read; save them interleaved")
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        most = 2**bits - 1
        levels = np.asarray(image).astype(np.int64)
        if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # the lowest level is white
            levels = most - levels
        seen = np.where(levels == clear, most, levels) if isinstance(clear, int) else levels
        seen = (seen * 255 + most // 2) // most
        return Image.fromarray(seen.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise ValueError(
            f"{kind} pixels have no known range; save it with 8 or 16 bits per channel"
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


@contextmanager
def _opened(
    source: Path | bytes,
    name: Path | str = "",
    formats: tuple[str, ...] | None = None,
    max_pixels: int = MOST_PIXELS,
) -> Iterator[Image.Image]:
    """The opened image; whatever goes wrong with it is a FcitError."""
    label = str(name) or ("" if isinstance(source, bytes) else str(source))
    with _faults(f"{label}: image" if label else "image"):
        if isinstance(source, Path):
            _check_file(source)
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=formats) as image:
            if (side := max(image.size)) ** 2 > max_pixels:
                padded = f"{side} x {side} when padded to a square, {max_pixels} are allowed"
                raise Image.DecompressionBombError(padded)
            yield image


def _check_file(path: Path) -> None:
    """Raise OSError for a folder, and for a pipe or device, which might never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file")


@contextmanager
def _faults(start: str) -> Iterator[None]:
    """Whatever goes wrong with an image is a FcitError that begins with `start`."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"{start} has too many pixels: {error}") from None
    except UnidentifiedImageError:
        raise FcitError(f"{start} cannot be decoded: unknown or damaged format") from None
    except Exception as error:  # Pillow raises nearly anything on a broken file
        if isinstance(error, OSError) and error.strerror:  # Pillow's own errors have none
            raise FcitError(f"{start} cannot be read: {error.strerror}") from None
        raise FcitError(f"{start} cannot be decoded: {first_line(error)}") from None
