"""Parquet tables of a hub (one row: an image, a question, an answer) into datasets of a data folder."""

import io
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fcit.benchmark import datasets, layout, records, tabular
from fcit.benchmark.datasets import Split
from fcit.benchmark.fetch import hub
from fcit.benchmark.fetch.hub import Repository
from fcit.benchmark.tabular import COLUMNS, TableRow
from fcit.types import FcitError, Sample, extra
from fcit.watch import Watch

VALIDATION = ("validation", "valid", "val", "dev")
SPLITS = {"train": "train", "training": "train", "trainval": "train"} | dict.fromkeys(
    ("test", "testing", "testmini", "testdev", *VALIDATION), "test"
)
"""The word that the name of a file or folder begins with, and which split that is (`test` goes first)"""


def of(files: Mapping[str, int], only: Sequence[str]) -> list[str]:
    """The tables among a repository's files, those of the folders `only` if it names some; empty where
    the repository has files of records, too."""
    found = [file for file in files if file.endswith(".parquet")]
    if any(re.fullmatch(r"(.*/)?(train|test)[^/]*\.jsonl?", file) for file in files):
        return []
    there = {part for file in found for part in Path(file).parts}
    if found and (odd := [name for name in only if name not in there]):
        folders = sorted({Path(file).parent.name for file in found} - {"", "data"})
        raise FcitError(
            f"--only {odd[0]}: no such folder of tables; there are {', '.join(folders) or 'none'}"
        )
    return [file for file in found if not only or set(Path(file).parts) & set(only)]


def _split(file: str) -> str:
    """The word of `SPLITS` that a file's name or its folder's begins with, or "". (`testA` is `test`.)"""
    for part in reversed(Path(file).parts[-2:]):
        for pattern in (r"[A-Za-z]+", r"[A-Z]?[a-z]+"):
            if (match := re.match(pattern, part)) and match[0].lower() in SPLITS:
                return match[0].lower()
    return ""


def _without_repeats(said: Mapping[str, str], watch: Watch) -> dict[str, str]:
    """The files without those whose rows are in others: `trainval` is `train` and `val` together."""
    words = set(said.values())
    twice = {"trainval"} if words & {"train", "training"} else {*VALIDATION}
    if "trainval" not in words or not words & twice:
        return {**said}
    out = ", ".join(file for file, word in said.items() if word in twice)
    watch.say(f"left out, as their rows are in other tables: {out}")
    return {file: word for file, word in said.items() if word not in twice}


def write(
    root: Path,
    repository: Repository,
    files: Sequence[str],
    columns: Mapping[str, str],
    watch: Watch,
) -> list[str]:
    """Make one dataset, named like the repository, of tables; return its name.

    Training rows are those of files called `train...`, test rows those of `test...` or `validation...`.
    Where there is no `train`, training rows are those of `trainval`, and `val` is left out. Without
    either split, a fifth of the rows is drawn to test with. Raises FcitError naming file, row and column.
    """
    if find_spec("pyarrow") is None:
        raise FcitError(f"{repository.name}: parquet tables need pyarrow: {extra('parquet')}")
    if odd := [key for key in columns if key not in COLUMNS]:
        raise FcitError(
            f"--column {odd[0]}: write one of {', '.join(f'{c}=NAME' for c in COLUMNS)}"
        )
    name = repository.name.rsplit("/", 1)[-1]
    if name in datasets.reserved():  # which are read as the benchmark publishes them
        name += "-table"
    said = _without_repeats({file: _split(file) for file in files}, watch)
    files = [*said]
    train = [file for file, split in said.items() if SPLITS.get(split) == "train"]
    test = [file for file, split in said.items() if split == "test"]
    test = test or [file for file, split in said.items() if SPLITS.get(split) == "test"]
    odd = [file for file, split in said.items() if not split]
    if odd and train and test:
        watch.say(f"left out, as their names are of no split: {', '.join(odd)}")
    elif odd and (train or test):
        raise FcitError(
            f"{odd[0]}: of which split? Other files are called {'train' if train else 'test'}...; name "
            "the files or folders to read with --only"
        )
    paths = hub.download(repository, files, watch)
    names = {key: columns.get(key, key) for key in COLUMNS}
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".aside-") as text:
        pictures = Path(text) / "pictures"  # mkdir's mode, not that of a temporary folder
        pictures.mkdir()
        if not (train and test):
            found = (row for file in files for row in _rows(file, paths[file], names, pictures))
            # the numbers become ids, so they run through all tables
            rows = [replace(row, number=number) for number, row in enumerate(found, 1)]
            tabular.write(root, name, rows, pictures, watch=watch)
            return [name]
        (root / "datasets").mkdir(parents=True)
        splits: dict[Split, list[str]] = {"train": train, "test": test}
        for split, tables in splits.items():
            samples = [
                Sample(f"{split}-{at}", name, f"{name}/{row.image}", row.question, (row.answer,))
                for at, row in enumerate(
                    row for file in tables for row in _rows(file, paths[file], names, pictures)
                )
            ]
            dataset = replace(datasets.find(name), folder=name)
            (layout.instructions(root) / name).mkdir(parents=True, exist_ok=True)
            dataset.write(root, split, samples)
        pictures.rename(root / "datasets" / name)
    return [name]


def _rows(file: str, path: Path, names: Mapping[str, str], pictures: Path) -> Iterator[TableRow]:
    """The rows of one table; their images are written to a folder."""
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as table:
            there = table.schema_arrow.names
            if lost := [f"{key}={name}" for key, name in names.items() if name not in there]:
                key, name = lost[0].split("=")
                raise FcitError(
                    f"{file}: no column {name}; there are {', '.join(there)}; say --column {key}=NAME"
                )
            classes = _classes(table.schema_arrow, names["answer"])
            for batch in table.iter_batches(64, columns=[*names.values()]):
                for row in batch.to_pylist():
                    number += 1
                    yield _row(
                        file, number, {k: row[name] for k, name in names.items()}, classes, pictures
                    )
    except pyarrow.ArrowException as error:
        raise FcitError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from None


def _classes(schema: Any, column: str) -> list[str]:
    """The names of a column's numbers, where the table says that they are classes."""
    said = (schema.metadata or {}).get(b"huggingface", b"{}")
    feature = records.JSON.decode(said.decode()).get("info", {}).get("features", {}).get(column)
    return feature.get("names", []) if isinstance(feature, dict) else []


def _row(
    file: str, number: int, values: dict[str, Any], classes: Sequence[str], pictures: Path
) -> TableRow:
    stem = re.sub(r"\W+", "-", file.removesuffix(".parquet"))
    try:
        answer = values["answer"]
        if classes and isinstance(answer, int) and 0 <= answer < len(classes):
            values["answer"] = classes[answer]
        data = _bytes(values["image"])
        name = f"{stem}-{number:06d}.{_ending(data)}"
        question = records.bare(records.filled(values, "question"))
        row = TableRow(number, name, question, records.filled(values, "answer").strip())
    except records.RecordError as error:
        raise FcitError(f"{file}, row {number}, column {error}") from None
    (pictures / name).write_bytes(data)
    return row


def _bytes(image: Any) -> bytes:
    if isinstance(image, list) and len(image) == 1:
        image = image[0]
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, bytes):
        raise records.RecordError("image: must hold one image's bytes")
    return data


def _ending(data: bytes) -> str:
    """The ending of an image's file name, by its content."""
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                return (image.format or "").lower().replace("jpeg", "jpg")
    except Exception:  # Pillow's plugins raise whatever they like
        raise records.RecordError("image: is no image that Pillow reads") from None
