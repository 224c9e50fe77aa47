"""The twelve datasets, one row each, and reading their official layout into samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fcit.benchmark import records
from fcit.files import read_json
from fcit.types import FcitError, Sample

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Dataset:
    """Where a dataset's records are, below `instructions/`, and how its answers are scored."""

    name: str
    folder: str
    train_file: str
    test_file: str
    scorer: Literal["exact", "containment", "caption", "box"]
    images: str
    caption_file: str = ""


DATASETS: dict[str, Dataset] = {
    row.name: row
    for row in (
        Dataset("ArxivQA", "ArxivQA", "train_4w.json", "test_1w.json", "exact", "ArxivQA"),
        Dataset("ImageNet-R", "ImageNet-R", "train.json", "test.json", "exact", "ImageNet-R"),
        Dataset("IconQA", "IconQA", "train.json", "val.json", "exact", "IconQA"),
        Dataset("CLEVR-Math", "CLEVR-Math", "train_4w.json", "test_1w.json", "exact", "CLEVR"),
        Dataset("super-CLEVR", "super-CLEVR", "train.json", "test.json", "exact", "super-CLEVR"),
        Dataset("OCR-VQA", "OCRVQA", "train_10w.json", "test_1w.json", "exact", "OCR-VQA"),
        Dataset("TabMWP", "TabMWP", "train.json", "test.json", "exact", "TabMWP"),
        Dataset("A-OKVQA", "AOKVQA", "train.json", "val.json", "exact", "COCO2014"),
        Dataset("FigureQA", "FigureQA", "train.json", "test.json", "containment", "FigureQA"),
        Dataset("DVQA", "DVQA", "train.json", "test.json", "containment", "DVQA"),
        Dataset(
            "Flickr30k",
            "Flickr30k-cap",
            "train_brief_4w.json",
            "val_brief.json",
            "caption",
            "Flickr30k",
            "val_coco_type.json",
        ),
        Dataset("Grounding", "Grounding", "train_11w.json", "test_6000.json", "box", "COCO2014"),
    )
}
"""Rows by name; `images` is the first folder of the image paths, below `datasets/`."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a record of a file; records count from 1."""

    file: Path
    record: int
    what: str


def read(root: Path, name: str, split: Split) -> list[Sample]:
    """The training or test samples of a dataset, in file order; no image is opened.

    Raises FcitError naming the file, and the record (from 1) and field, at fault.
    """
    return _all_good(parse(root, name, split))


def parse(root: Path, name: str, split: Split) -> Iterator[Sample | Fault]:
    """Like `read`, one by one, but a malformed record becomes a Fault. Files still raise FcitError."""
    row = find(name)
    path = record_file(root, row, split)
    if split == "train":
        return _parsed(
            path, records.stream(path), lambda record, at: records.training(record, at, name)
        )
    rows = list(records.stream(path))
    captions = references(path.with_name(row.caption_file), len(rows)) if row.caption_file else None

    def reader(record: dict[str, Any], at: int) -> Sample:
        if captions is None:
            return records.test(record, at, name, box=row.scorer == "box")
        if at + 1 not in captions:
            raise records.RecordError(
                f"{row.caption_file} has no annotation with image_id {at + 1}"
            )
        return records.test(record, at, name, answers=captions[at + 1])

    return _parsed(path, rows, reader)


def read_training_file(path: Path, tell: Callable[[dict[str, Any]], str]) -> list[Sample]:
    """Samples of a file of training records; `tell` names a record's dataset (or raises RecordError).

    Raises FcitError naming the file, record and field at fault.
    """
    return _all_good(parse_training_file(path, tell))


def parse_training_file(
    path: Path, tell: Callable[[dict[str, Any]], str]
) -> Iterator[Sample | Fault]:
    """Like `read_training_file`, one by one, but a malformed record becomes a Fault."""
    return _parsed(
        path,
        records.stream(path),
        lambda record, at: records.training(record, at, tell(record)),
    )


def find(name: str) -> Dataset:
    """The row of a dataset; one that has none is a folder of its own name, scored exactly.

    So a dataset of your own is `instructions/<name>/train.json` and `test.json`. Raises FcitError on
    a name that is no folder's.
    """
    if name in DATASETS:
        return DATASETS[name]
    if not name or name != Path(name).name or name.startswith("."):
        raise FcitError(f"{name!r} cannot be a dataset: its name must be that of a folder")
    return Dataset(name, name, "train.json", "test.json", "exact", "")


def present(root: Path) -> list[str]:
    """The datasets that have a folder below `instructions/`: the known ones first, then your own."""
    instructions = root / "instructions"
    folders = sorted(path.name for path in instructions.iterdir()) if instructions.is_dir() else []
    known = {row.folder: row.name for row in DATASETS.values()}
    own = [name for name in folders if name not in known and not name.startswith(".")]
    here = [row.name for row in DATASETS.values() if row.folder in folders]
    return here + [name for name in own if (instructions / name).is_dir()]


def record_file(root: Path, row: Dataset, split: Split) -> Path:
    """The file of a dataset's training or test records."""
    file = {"train": row.train_file, "test": row.test_file}[split]
    return root / "instructions" / row.folder / file


def image_folders(root: Path, images: Sequence[Path] = ()) -> tuple[Path, ...]:
    """The folders that image paths start at, tried in order: `images`, or `datasets/` of the root."""
    return tuple(images) or (root / "datasets",)


def image_path(root: Path, sample: Sample, images: Sequence[Path] = ()) -> Path:
    """Where a sample's image is: in the first folder that has it (in none: where it should be)."""
    return locate(root, sample.image, images)


def locate(root: Path, image: str, images: Sequence[Path] = ()) -> Path:
    """Where the image of a record's path is (see `image_path`)."""
    places = [folder / image for folder in image_folders(root, images)]
    if len(places) == 1:
        return places[0]
    return next((place for place in places if place.is_file()), places[0])


def missing(root: Path, names: Sequence[str], images: Sequence[Path] = ()) -> dict[str, list[str]]:
    """Which files and folders these datasets need and do not have, by dataset; relative to `root`,
    image folders to one of `images` where these are given."""
    absent: dict[str, list[str]] = {}
    for name in names:
        row = find(name)
        files = [
            f"instructions/{row.folder}/{file}"
            for file in filter(None, (row.train_file, row.test_file, row.caption_file))
        ]
        lacking = [file for file in files if not (root / file).is_file()]
        folders = image_folders(root, images)
        if row.images and not any((folder / row.images).is_dir() for folder in folders):
            lacking.append(row.images if images else f"datasets/{row.images}")
        if lacking:
            absent[name] = lacking
    return absent


def require(root: Path, names: Sequence[str], images: Sequence[Path] = ()) -> None:
    """Raise an FcitError that names all datasets that are not whole and what they lack, in one line."""
    if absent := missing(root, names, images):
        said = "; ".join(f"{', '.join(lacking)} for {name}" for name, lacking in absent.items())
        where = (
            f" (image folders are looked for in {', '.join(map(str, images))})" if images else ""
        )
        here = [name for name in present(root) if name not in absent]
        raise FcitError(
            f"{root} lacks {said}{where}; it has the datasets {', '.join(here) or '(none)'}"
        )


def _all_good(found: Iterator[Sample | Fault]) -> list[Sample]:
    samples: list[Sample] = []
    for one in found:
        if isinstance(one, Fault):
            raise FcitError(f"{one.file}, record {one.record}: {one.what}")
        samples.append(one)
    return samples


def _parsed(
    path: Path, rows: Iterable[Any], reader: Callable[[dict[str, Any], int], Sample]
) -> Iterator[Sample | Fault]:
    for at, record in enumerate(rows):
        try:
            if not isinstance(record, dict):
                raise records.RecordError(f"must be an object, not {records.kind(record)}")
            yield reader(record, at)
        except records.RecordError as error:
            yield Fault(path, at + 1, str(error))


def references(path: Path, count: int | None = None) -> dict[int, tuple[str, ...]]:
    """Captions by the number of the test record (from 1) of a COCO caption file.

    `count` is how many test records there are, where that is known. Raises FcitError.
    """
    value = read_json(path)
    notes = value.get("annotations") if isinstance(value, dict) else None
    if not isinstance(notes, list):
        raise FcitError(f'{path}: must be an object with a list of "annotations"')
    found: dict[int, tuple[str, ...]] = {}
    for number, note in enumerate(notes, 1):
        key = note.get("image_id") if isinstance(note, dict) else None
        caption = note.get("caption") if isinstance(note, dict) else None
        if not isinstance(caption, str) or type(key) is not int:
            raise FcitError(
                f'{path}, annotation {number}: needs a whole number "image_id" and a text "caption"'
            )
        if count is not None and not 1 <= key <= count:
            raise FcitError(
                f"{path}, annotation {number}: image_id {key}, but the test file has {count} records"
            )
        found[key] = (*found.get(key, ()), caption)
    return found
