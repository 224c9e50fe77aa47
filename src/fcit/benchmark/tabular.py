"""A table of images, questions and answers (CSV or JSON lines) into a dataset of the official layout."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from fcit.benchmark.check import content
from fcit.benchmark.datasets import DATASETS, find
from fcit.benchmark.records import bare, json_lines, kind
from fcit.files import write_json
from fcit.seeds import numpy_stream
from fcit.types import FcitError

Form = Literal["csv", "jsonl"]
COLUMNS = ("image", "question", "answer")
"""What a table must have; further columns are left out."""


@dataclass(frozen=True)
class TableRow:
    """One question of a table. `number` is its row or line, from 1 (of a CSV, 1 is the header);
    `image` starts at the folder of images, and `question` holds no placeholder for it."""

    number: int
    image: str
    question: str
    answer: str


@dataclass(frozen=True)
class Imported:
    """How many training and test samples a table gave, and images."""

    train: int
    test: int
    images: int


def read(table: Path, form: Form) -> list[TableRow]:
    """The rows of a table that has the columns image, question (image placeholders are taken out) and
    answer.

    A CSV is UTF-8 with a header and commas; JSON lines hold an object each, whose numbers count as
    text. Raises FcitError naming the row and column at fault.
    """
    found: list[TableRow] = []
    for number, fields in _csv(table) if form == "csv" else json_lines(table):
        place = f"{table}, {'row' if form == 'csv' else 'line'} {number}"
        image, question, answer = (_text(place, fields, column) for column in COLUMNS)
        windows = PureWindowsPath(image)
        if windows.anchor or ".." in windows.parts or "\0" in image:
            raise FcitError(f"{place}, column image: {image!r} leaves the folder of images")
        question = bare(question)
        if not question:
            raise FcitError(f"{place}, column question: asks nothing")
        found.append(TableRow(number, str(PurePosixPath(image)), question, answer))
    if not found:
        raise FcitError(f"{table}: holds no rows")
    return found


def write(
    root: Path,
    name: str,
    rows: Sequence[TableRow],
    images: Path,
    test_share: float = 0.2,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Make the dataset `name` of a data folder from rows; it appears whole or not at all.

    Images are copied from the folder `images` to `datasets/<name>/`. About `test_share` of the rows
    become test records, drawn with `seed` by what their image shows, so that no test image is a
    training image. `progress` hears (images done, twice the images: read, then copied). Raises
    FcitError for a name that is taken, for images that are missing or cannot be decoded (naming the
    first row), and where all rows show the same image.
    """
    pictures, records = root / "datasets" / name, root / "instructions" / name
    _validate(root, name, (pictures, records), images, test_share)
    first = {row.image: row for row in reversed(rows)}
    paths = dict.fromkeys(row.image for row in rows)
    total = 2 * len(paths)
    shown = _shown(images, list(paths), first, lambda done: progress and progress(done, total))
    test = _test_images(rows, shown, test_share, seed, name)
    asides = [path.with_name(f".{name}-{os.getpid()}.unfinished") for path in (pictures, records)]
    try:
        for done, image in enumerate(paths, len(paths) + 1):
            copy = asides[0] / image
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(images / image, copy)
            if progress:
                progress(done, total)
        taught = [_taught(name, row) for row in rows if row.image not in test]
        asked = [_asked(name, row) for row in rows if row.image in test]
        write_json(asides[1] / "train.json", taught)
        write_json(asides[1] / "test.json", asked)
        asides[0].rename(pictures)
        try:
            asides[1].rename(records)  # from here on the dataset is there
        except OSError:
            shutil.rmtree(pictures)
            raise
    except OSError as error:
        raise FcitError(f"{root}: {name} cannot be written: {error}") from None
    finally:
        for aside in asides:
            shutil.rmtree(aside, ignore_errors=True)
    return Imported(len(taught), len(asked), len(paths))


def _validate(
    root: Path, name: str, places: Sequence[Path], images: Path, test_share: float
) -> None:
    find(name)  # refuses what is no folder's name
    if name in DATASETS or name in {row.folder for row in DATASETS.values()}:
        raise FcitError(f"{name!r} is a dataset of the benchmark; choose another name")
    if not 0 < test_share < 1:
        raise FcitError(f"--test-share: {test_share} must lie between 0 and 1")
    if not images.is_dir():
        raise FcitError(f"{images}: no such folder")
    if taken := [str(place) for place in places if place.exists()]:
        raise FcitError(f"{' and '.join(taken)}: already there; choose another name or --out")


def _shown(
    images: Path, paths: list[str], first: dict[str, TableRow], step: Callable[[int], Any]
) -> dict[str, bytes]:
    """A digest of what each image shows; FcitError naming the first row whose image is at fault."""
    found: dict[str, bytes] = {}
    wrong: list[str] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = pool.map(content, [images / path for path in paths])
        for done, (path, result) in enumerate(zip(paths, results, strict=True), 1):
            if isinstance(result, bytes):
                found[path] = result
            else:
                wrong.append(f"row {first[path].number}, column image: {path} {result}")
            step(done)
    if wrong:
        more = f" (and {len(wrong) - 1} more images)" if len(wrong) > 1 else ""
        raise FcitError(f"{images}: {wrong[0]}{more}")
    return found


def _test_images(
    rows: Sequence[TableRow], shown: dict[str, bytes], share: float, seed: int, name: str
) -> set[str]:
    """The images of the test records: whole groups of those that show the same."""
    sizes: dict[bytes, int] = {}
    for row in rows:
        sizes[shown[row.image]] = sizes.get(shown[row.image], 0) + 1
    groups = list(sizes)
    if len(groups) < 2:
        raise FcitError(f"{name}: all rows show the same image, but testing needs one of its own")
    wanted = min(max(1, round(share * len(rows))), len(rows) - 1)
    chosen: set[bytes] = set()
    left = wanted
    for at in numpy_stream(seed, "import", name).permutation(len(groups)):
        if sizes[groups[at]] <= left:
            chosen.add(groups[at])
            left -= sizes[groups[at]]
    chosen = chosen or {min(groups, key=lambda group: sizes[group])}
    return {image for image, group in shown.items() if group in chosen}


def _taught(name: str, row: TableRow) -> dict[str, Any]:
    turns = (("human", f"<image>\n{row.question}"), ("gpt", row.answer))
    said = [{"from": speaker, "value": text} for speaker, text in turns]
    return {"id": str(row.number), "image": f"{name}/{row.image}", "conversations": said}


def _asked(name: str, row: TableRow) -> dict[str, Any]:
    image = f"{name}/{row.image}"
    return {
        "question_id": str(row.number), "image": image, "text": row.question, "answer": row.answer,
    }  # fmt: skip


def _csv(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a CSV file by their number; the header is row 1."""
    number = 0
    header: list[str] = []
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            for number, cells in enumerate(csv.reader(file, strict=True), 1):
                if header and cells:
                    if len(cells) != len(header):
                        raise FcitError(
                            f"{table}, row {number}: has {len(cells)} columns, "
                            f"but the header {len(header)}"
                        )
                    yield number, dict(zip(header, cells, strict=True))
                elif cells:
                    header = _header(f"{table}, row {number}", cells)
    except FileNotFoundError:
        raise FcitError(f"{table}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FcitError(f"{table}: cannot be read: {error}") from None
    except csv.Error as error:
        raise FcitError(f"{table}, row {number + 1}: not valid CSV: {error}") from None


def _header(place: str, cells: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    for column in COLUMNS:
        if column not in header:
            raise FcitError(f"{place}: no column {column}; there are {', '.join(header)}")
        if header.count(column) > 1:
            raise FcitError(f"{place}: two columns {column}")
    return header


def _text(place: str, fields: dict[str, Any], column: str) -> str:
    value = fields.get(column)
    if column != "image" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        state = f"must be text, not {kind(value)}" if column in fields else "is missing"
        raise FcitError(f"{place}, column {column}: {state}")
    if not value.strip():
        raise FcitError(f"{place}, column {column}: is empty")
    return value
