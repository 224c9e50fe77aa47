"""A table of images, questions and answers (CSV or JSON lines) into a dataset of the official layout."""

import csv
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fcit.benchmark import datasets, layout, records
from fcit.benchmark.pictures import contents
from fcit.files import below, folder_aside, json_lines, reading
from fcit.seeds import numpy_stream
from fcit.types import FcitError, Sample
from fcit.watch import Silent, Watch

Form = Literal["csv", "jsonl"]
COLUMNS = ("image", "question", "answer")
"""What a table must have; further columns are left out."""


@dataclass(frozen=True)
class TableRow:
    """One question of a table."""

    number: int
    """Its row or line, from 1 (of a CSV, 1 is the header)."""
    image: str
    """A path that starts at the folder of images."""
    question: str
    """Without a placeholder for the image."""
    answer: str


def read(table: Path, form: Form) -> list[TableRow]:
    """The rows of a table that has the columns image, question (image placeholders are taken out) and
    answer.

    A CSV is UTF-8 with a header, and commas, semicolons or tabs between columns; JSON lines hold an
    object each, whose numbers count as text. Raises FcitError naming the row and column at fault.
    """
    rows: list[TableRow] = []
    for number, fields in _csv(table) if form == "csv" else json_lines(table):
        where = f"{table}, {'row' if form == 'csv' else 'line'} {number}"
        try:
            image = records.image(fields.get("image"), "the folder of images")
            question = records.bare(records.filled(fields, "question"))
            answer = records.filled(fields, "answer").strip()
            if not question:
                raise records.RecordError("question: is empty")
        except records.RecordError as error:
            raise FcitError(f"{where}, column {error}") from None
        rows.append(TableRow(number, image, question, answer))
    if not rows:
        raise FcitError(f"{table}: holds no rows")
    return rows


def write(
    root: Path,
    name: str,
    rows: Sequence[TableRow],
    images: Path,
    test_share: float = 0.2,
    seed: int = 0,
    watch: Watch | None = None,
    table: Path | None = None,
) -> tuple[int, int, int]:
    """Make the dataset `name` of a data folder from rows; it appears whole or not at all. Return how many
    training samples, test samples and images it has.

    Images are copied from the folder `images` to `datasets/<name>/`. About `test_share` of the rows
    become test records, drawn with `seed` by what their image shows, so that no test image is a
    training image. Raises FcitError for a name that is taken, for images that are missing or cannot be
    decoded (naming the first row, and `table` if it is given), and where all rows show the same image.
    """
    watch = watch or Silent()
    if not (kept := layout.images(root)):
        raise FcitError(f"{root}: keeps images beside their records; choose another --out")
    pictures, folder = kept[0] / name, layout.instructions(root) / name
    _validate(root, name, (pictures, folder), images, test_share)
    paths = {row.image: below(images, row.image) for row in rows}
    shown = contents(paths, watch)
    if wrong := [row for row in rows if isinstance(shown[row.image], str)]:
        row, others = wrong[0], len({row.image for row in wrong}) - 1
        more = f" (and {others} more images)" if others else ""
        raise FcitError(
            f"{table or name}, row {row.number}, column image: {row.image!r} in {images} "
            f"{shown[row.image]}{more}"
        )
    test_images = _test_images(rows, shown, test_share, seed, name)
    samples: dict[bool, list[Sample]] = {False: [], True: []}
    for row in rows:
        image, answers = f"{name}/{row.image}", (row.answer,)
        sample = Sample(str(row.number), name, image, row.question, answers)
        samples[row.image in test_images].append(sample)
    try:
        with (
            folder_aside(folder) as aside,
            folder_aside(pictures) as copies,
            watch.bar("copies", len(paths)) as step,
        ):
            for done, (image, path) in enumerate(paths.items(), 1):
                copy = copies / image
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
                step(done)
            dataset = replace(datasets.find(name), folder=aside.name)
            dataset.write(root, "train", samples[False])
            dataset.write(root, "test", samples[True])
    except OSError as error:
        raise FcitError(f"{root}: {name} cannot be written: {error}") from None
    return len(samples[False]), len(samples[True]), len(paths)


def _validate(
    root: Path, name: str, folders: Sequence[Path], images: Path, test_share: float
) -> None:
    datasets.find(name)  # refuses what is no folder's name
    if name in datasets.reserved():
        raise FcitError(f"{name!r} is a dataset of the benchmark; choose another name")
    if not 0 < test_share < 1:
        raise FcitError(f"--test-share: {test_share} must lie between 0 and 1")
    if not images.is_dir():
        raise FcitError(f"{images}: no such folder")
    if taken := [str(folder) for folder in folders if folder.exists()]:
        raise FcitError(f"{' and '.join(taken)}: already there; choose another name or --out")


def _test_images(
    rows: Sequence[TableRow], shown: Mapping[str, bytes | str], share: float, seed: int, name: str
) -> set[str]:
    """The images of the test records: whole groups of those that show the same."""
    sizes = Counter(shown[row.image] for row in rows)
    groups = list(sizes)
    if len(groups) < 2:
        raise FcitError(f"{name}: all rows show the same image, but testing needs one of its own")
    wanted = min(max(1, round(share * len(rows))), len(rows) - 1)
    chosen: set[bytes | str] = set()
    left = wanted
    for at in numpy_stream(seed, "import", name).permutation(len(groups)):
        if sizes[groups[at]] <= left:
            chosen.add(groups[at])
            left -= sizes[groups[at]]
    chosen = chosen or {min(groups, key=lambda group: sizes[group])}
    return {image for image, group in shown.items() if group in chosen}


def _csv(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a CSV file by their number; the header is row 1."""
    number = 0
    try:
        with reading(table), table.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            mark = max(",;\t", key=first.count)
            lines = csv.reader(file, strict=True, delimiter=mark)
            header: list[str] = []
            for number, cells in enumerate(lines, 1):
                where = f"{table}, row {number}"
                if cells and header and len(cells) != len(header):
                    raise FcitError(
                        f"{where}: has {len(cells)} columns, but the header {len(header)}"
                    )
                if cells and header:
                    yield number, dict(zip(header, cells, strict=True))
                elif cells:
                    header = _header(where, cells)
    except csv.Error as error:
        raise FcitError(f"{table}, row {number + 1}: not valid CSV: {error}") from None


def _header(where: str, cells: list[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    for column in COLUMNS:
        if column not in header:
            raise FcitError(f"{where}: no column {column}; there are {', '.join(header)}")
        if header.count(column) > 1:
            raise FcitError(f"{where}: two columns {column}")
    return header
