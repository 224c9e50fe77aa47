"""Validate a data folder: every record and every image, everything that is wrong at once."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fcit.benchmark import datasets
from fcit.benchmark.datasets import DATASETS, Fault, Split
from fcit.types import FcitError, Sample


@dataclass(frozen=True)
class Problem:
    """Something wrong: the file relative to the data folder, the record (empty: the file), what."""

    file: str
    record: str
    what: str


@dataclass(frozen=True)
class Report:
    """What a check found: problems, readable records by dataset and split, datasets not there."""

    problems: list[Problem]
    counts: dict[str, dict[str, int]]
    absent: list[str]


@dataclass(frozen=True)
class _Place:
    """Where a sample stands."""

    file: str
    number: int
    split: Split
    sample: Sample

    def problem(self, what: str) -> Problem:
        return Problem(self.file, f"record {self.number} (id {self.sample.id})", what)


def check(
    root: Path,
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Check the datasets below `root` (those of `names`, or all) that have an instruction folder.

    Reported are unreadable files, malformed records, ids that a file repeats, image paths that leave
    `datasets/`, images that are missing or cannot be decoded to the end, and test samples whose image
    content and prompt are also in training data. `progress` hears (images done, images in all).
    Raises FcitError for a root that is not a folder or an unknown name.
    """
    if not root.is_dir():
        raise FcitError(f"{root}: no such folder")
    found = datasets.present(root)
    wanted = list(dict.fromkeys([*DATASETS, *found])) if names is None else list(names)
    here = [name for name in wanted if name in found]
    problems: list[Problem] = []
    counts: dict[str, dict[str, int]] = {}
    places: list[_Place] = []
    if not here:
        problems.append(Problem("instructions", "", "holds none of the datasets' folders"))
    for name in here:
        counts[name] = {}
        for split in ("train", "test"):
            found = _read(root, name, split, problems)
            counts[name][split] = len(found)
            problems.extend(_repeats(found))
            places.extend(found)
    if (root / "datasets").is_dir():
        contents = _contents(root, places, problems, progress)
        problems.extend(_leaks(places, contents))
    elif here:
        problems.append(Problem("datasets", "", "no such folder; the images belong there"))
    return Report(problems, counts, [name for name in wanted if name not in here])


def _read(root: Path, name: str, split: Split, problems: list[Problem]) -> list[_Place]:
    """The readable records of a file; what is wrong with the others goes to `problems`."""
    path = datasets.record_file(root, datasets.find(name), split)
    file = path.relative_to(root).as_posix()
    found: list[_Place] = []
    try:
        for number, one in enumerate(datasets.parse(root, name, split), 1):
            if isinstance(one, Fault):
                problems.append(Problem(file, f"record {one.record}", one.what))
            else:
                found.append(_Place(file, number, split, one))
    except FcitError as error:
        beside = path.with_name(datasets.find(name).caption_file or path.name)
        wrong = path if str(error).startswith(str(path)) else beside
        what = str(error).removeprefix(str(wrong)).lstrip(":, ")
        problems.append(Problem(wrong.relative_to(root).as_posix(), "", what))
    return found


def _repeats(places: list[_Place]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for place in places:
        number = first.setdefault(place.sample.id, place.number)
        if number != place.number:
            yield place.problem(f"its id is also that of record {number}")


def _contents(
    root: Path,
    places: list[_Place],
    problems: list[Problem],
    progress: Callable[[int, int], None] | None,
) -> dict[str, bytes]:
    """A digest of what every image shows, by path; those that cannot be read go to `problems`."""
    first: dict[str, _Place] = {}
    for place in places:
        first.setdefault(place.sample.image, place)
    found: dict[str, bytes] = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        warnings.simplefilter("ignore")  # Pillow's, of odd but readable images
        todo, done = iter(first.values()), 0
        while batch := list(islice(todo, 256)):
            paths = [datasets.image_path(root, place.sample) for place in batch]
            for place, result in zip(batch, pool.map(_content, paths), strict=True):
                if isinstance(result, bytes):
                    found[place.sample.image] = result
                else:
                    problems.append(place.problem(f"image {place.sample.image}: {result}"))
            done += len(batch)
            if progress:
                progress(done, len(first))
    return found


def _content(path: Path) -> bytes | str:
    """A digest of an image's size and pixels, or what is wrong with the file."""
    from PIL import Image

    if not path.is_file():
        return "is missing"
    try:
        with Image.open(path) as image:
            image.load()  # opening reads the header only
            pixels = image.convert("RGB")
    except Exception as error:  # Pillow raises nearly anything on a broken file
        said = str(error).replace(str(path), path.name) or type(error).__name__
        return f"cannot be decoded: {said}"
    return hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).digest()


def _leaks(places: list[_Place], contents: dict[str, bytes]) -> Iterator[Problem]:
    """Test samples that are training samples, also of another dataset."""
    trained: dict[tuple[bytes, str], _Place] = {}
    for place in places:
        content = contents.get(place.sample.image)
        if place.split == "train" and content:
            trained.setdefault((content, place.sample.prompt), place)
    for place in places:
        content = contents.get(place.sample.image)
        twin = trained.get((content, place.sample.prompt)) if content else None
        if place.split == "test" and twin:
            yield place.problem(
                f"is also a training sample: {twin.file}, record {twin.number} (id {twin.sample.id})"
            )
