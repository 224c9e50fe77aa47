"""What image files show: a digest, or what is wrong with them."""

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from fcit.benchmark import missing
from fcit.types import FcitError
from fcit.watch import Watch


def contents(paths: Mapping[str, Path], watch: Watch) -> dict[str, bytes | str]:
    """By an image's name, a digest of what it shows, or what is wrong with its file."""
    results: dict[str, bytes | str] = {}
    names = iter(paths)
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        watch.bar("images", len(paths)) as step,
    ):
        warnings.simplefilter("ignore")  # Pillow's, of odd but readable images
        while some := list(islice(names, 256)):
            digests = pool.map(content, [paths[name] for name in some])
            results |= zip(some, digests, strict=True)
            step(len(results))
    return results


def content(path: Path) -> bytes | str:
    """A digest of an image's size and pixels, or what is wrong with the file."""
    from fcit.models.images import open_image

    try:
        if not path.is_file():
            return "is a folder" if path.is_dir() else f"is missing{missing.other_case(path)}"
        pixels = open_image(path)
    except FcitError as error:
        return str(error).removeprefix(f"{path}: image ")
    except OSError as error:  # such as a folder that may not be read
        return f"cannot be read: {error.strerror}"
    return hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).digest()


def broken(paths: Sequence[Path]) -> set[Path]:
    """Which images are missing or cannot be read.

    An image that begins and ends as its format does counts as readable: only others are decoded, so that
    damage within a file is not found here, but by `fcit data check`, or when a run opens the image.
    """
    from fcit.models.images import is_whole

    unique = list(dict.fromkeys(paths))
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        warnings.simplefilter("ignore")
        sound = pool.map(lambda path: is_whole(path) or isinstance(content(path), bytes), unique)
        return {path for path, good in zip(unique, sound, strict=True) if not good}
