"""Validate a data folder: every record and every image, everything that is wrong at once."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from fcit.benchmark import datasets, published
from fcit.benchmark.datasets import DATASETS, Fault, Split
from fcit.types import FcitError, Sample, Task


@dataclass(frozen=True)
class Problem:
    """Something wrong: the file relative to the data folder, the record (empty: the file), what."""

    file: str
    record: str
    what: str


@dataclass(frozen=True)
class Shares:
    """A task's published split: client files, readable records in them, and how many of these are not
    in the training files, which hold `training` records."""

    task: str
    clients: int
    records: int
    foreign: int
    training: int


@dataclass(frozen=True)
class Report:
    """What a check found: problems, readable records by dataset and split, datasets not there, and
    published splits by folder."""

    problems: list[Problem]
    counts: dict[str, dict[str, int]]
    absent: list[str]
    published: dict[str, Shares] = field(default_factory=dict[str, Shares])


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a sample stands, and what else a check remembers of it."""

    file: str
    number: int
    split: Split
    id: str
    image: str
    prompt: bytes

    def problem(self, what: str) -> Problem:
        return Problem(self.file, f"record {self.number} (id {self.id})", what)


def check(
    root: Path,
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    images: Sequence[Path] = (),
    reading: Callable[[int, int], None] | None = None,
) -> Report:
    """Check the datasets below `root` (those of `names`, or all) that have an instruction folder.

    Reported are unreadable files, malformed records, ids that a test file repeats, image paths that
    climb out of `datasets/`, images that are missing or cannot be decoded to the end, and test
    samples whose image content and prompt are also in training data. The published split
    (`partitioned_data/`) is read too: its records are training records, those of the training files
    or others, which are then checked like them. `images` are folders to look for images in instead
    of `datasets/`. `reading` hears (files or folders of client files read, in all), `progress`
    (images done, images in all).
    Raises FcitError for a root that is not a folder or an unknown name.
    """
    if not root.is_dir():
        raise FcitError(f"{root}: no such folder")
    found = datasets.present(root)
    wanted = list(dict.fromkeys([*DATASETS, *found])) if names is None else list(names)
    here = [name for name in wanted if name in found]
    splits = [
        (place, task)
        for place, task in published.folders(root)
        if names is None or (task and set(task.datasets) <= set(names))
    ]
    seen = _Seen()
    counts: dict[str, dict[str, int]] = {}
    shares: dict[str, Shares] = {}
    done, total = 0, 2 * len(here) + len(splits)
    if not here:
        seen.problems.append(Problem("instructions", "", "holds none of the datasets' folders"))
    for name in here:
        counts[name] = {}
        for split in ("train", "test"):
            some = _read(root, name, split, seen)
            counts[name][split] = len(some)
            if split == "test":  # training ids are nobody's business: often they are the images'
                seen.problems.extend(_repeats(some))
            seen.places.extend(some)
            done += 1
            if reading:
                reading(done, total)
    for place, task in splits:
        of_files = sum(
            counts.get(name, {}).get("train", 0) for name in (task.datasets if task else ())
        )
        shares[_name(root, place)] = _read_shares(root, place, task, of_files, seen)
        done += 1
        if reading:
            reading(done, total)
    lacking = [folder for folder in datasets.image_folders(root, images) if not folder.is_dir()]
    for folder in lacking if here else []:
        name = str(folder) if images else _name(root, folder)
        seen.problems.append(Problem(name, "", "no such folder; the images belong there"))
    if not lacking:
        contents = _contents(root, images, seen, progress)
        seen.problems.extend(_leaks(seen.places, contents))
    absent = [name for name in wanted if name not in here]
    return Report(seen.problems, counts, absent, shares)


@dataclass(frozen=True)
class _Seen:
    """What a check has gathered: problems, samples, and a digest of every training record."""

    problems: list[Problem] = field(default_factory=list[Problem])
    places: list[_Place] = field(default_factory=list[_Place])
    known: set[bytes] = field(default_factory=set[bytes])


def _read(root: Path, name: str, split: Split, seen: _Seen) -> list[_Place]:
    """The readable records of a file."""
    path = datasets.record_file(root, datasets.find(name), split)
    file = _name(root, path)
    found: list[_Place] = []
    try:
        for number, one in enumerate(datasets.parse(root, name, split), 1):
            if isinstance(one, Fault):
                seen.problems.append(Problem(file, f"record {one.record}", one.what))
            else:
                found.append(_place(file, number, split, one))
                if split == "train":
                    seen.known.add(_said(one))
    except FcitError as error:
        beside = path.with_name(datasets.find(name).caption_file or path.name)
        wrong = path if str(error).startswith(str(path)) else beside
        what = str(error).removeprefix(str(wrong)).lstrip(":, ")
        seen.problems.append(Problem(_name(root, wrong), "", what))
    return found


def _read_shares(root: Path, place: Path, task: Task | None, training: int, seen: _Seen) -> Shares:
    """Read a task's client files; records that no training file has join the samples to be checked."""
    files = published.client_files(place)
    if task is None:
        what = "is of none of the benchmark's tasks and betas"
        seen.problems.append(Problem(_name(root, place), "", what))
        return Shares("?", len(files), 0, 0, 0)
    gap = next((client for client in range(len(files)) if client not in files), None)
    if gap is not None or not files:
        what = f"has {len(files)} client files, but no client_{gap or 0}.json"
        seen.problems.append(Problem(_name(root, place), "", what))
    records = foreign = 0
    tell = partial(published.dataset_of, task)
    for path in files.values():
        file = _name(root, path)
        try:
            found = datasets.parse_training_file(path, tell)
            for number, one in enumerate(found, 1):
                if isinstance(one, Fault):
                    seen.problems.append(Problem(file, f"record {one.record}", one.what))
                    continue
                records += 1
                if _said(one) not in seen.known:
                    foreign += 1
                    seen.places.append(_place(file, number, "train", one))
        except FcitError as error:
            what = str(error).removeprefix(str(path)).lstrip(":, ")
            seen.problems.append(Problem(file, "", what))
    return Shares(task.name, len(files), records, foreign, training)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _place(file: str, number: int, split: Split, sample: Sample) -> _Place:
    prompt = hashlib.blake2b(repr(sample.prompt).encode(), digest_size=16).digest()
    return _Place(file, number, split, sample.id, sample.image, prompt)


def _said(sample: Sample) -> bytes:
    """A digest of all that a training record teaches."""
    parts = (sample.dataset, sample.image, sample.prompt, sample.answers, sample.more)
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def _repeats(places: list[_Place]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for place in places:
        number = first.setdefault(place.id, place.number)
        if number != place.number:
            yield place.problem(f"its id is also that of record {number}")


def _contents(
    root: Path,
    images: Sequence[Path],
    seen: _Seen,
    progress: Callable[[int, int], None] | None,
) -> dict[str, bytes]:
    """A digest of what every image shows, by path; those that cannot be read are problems."""
    first: dict[str, _Place] = {}
    for place in seen.places:
        first.setdefault(place.image, place)
    found: dict[str, bytes] = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        warnings.simplefilter("ignore")  # Pillow's, of odd but readable images
        todo, done = iter(first.values()), 0
        while batch := list(islice(todo, 256)):
            paths = [datasets.locate(root, place.image, images) for place in batch]
            for place, result in zip(batch, pool.map(content, paths), strict=True):
                if isinstance(result, bytes):
                    found[place.image] = result
                else:
                    seen.problems.append(place.problem(f"image {place.image}: {result}"))
            done += len(batch)
            if progress:
                progress(done, len(first))
    return found


def content(path: Path) -> bytes | str:
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
    trained: dict[tuple[bytes, bytes], _Place] = {}
    for place in places:
        content = contents.get(place.image)
        if place.split == "train" and content:
            trained.setdefault((content, place.prompt), place)
    for place in places:
        content = contents.get(place.image)
        twin = trained.get((content, place.prompt)) if content else None
        if place.split == "test" and twin:
            yield place.problem(
                f"is also a training sample: {twin.file}, record {twin.number} (id {twin.id})"
            )
