"""`instructions/NAME/dataset.toml`: what a data folder may say of a dataset, none of which is code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from fcit.benchmark import records, rules
from fcit.benchmark.rules.caption import Caption
from fcit.files import clean, is_plain_name, read_toml, write_text
from fcit.types import FcitError, readable

if TYPE_CHECKING:
    from fcit.benchmark.datasets import Dataset


def _file_name(name: str) -> str:
    if not is_plain_name(name):
        raise ValueError(f"{name!r} is no name of a file in the dataset's folder")
    return name


def _folder(path: str) -> str:
    try:
        return records.image(path) if path else ""
    except records.RecordError as error:
        raise ValueError(str(error).removeprefix("image: ")) from None


def _line(text: str) -> str:
    if not (line := clean(text).strip()) or "\n" in line:
        raise ValueError("must be one line of text")
    return line


_Folder = Annotated[str, AfterValidator(_folder)]
_FileName = Annotated[str, AfterValidator(_file_name)]
_FileNames = _FileName | list[_FileName]
"""One name, or several: the first that is there."""


class DatasetFile(BaseModel):
    """What `instructions/NAME/dataset.toml` may say; what it leaves out is as without it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    benchmark: str | None = None
    """The benchmark whose dataset of this name it is, where the data folder is not that benchmark's."""
    train: _FileNames | None = None
    """The file of training records (train.json)."""
    test: _FileNames | None = None
    """The file of test records (test.json)."""
    rule: str | None = None
    """The scoring rule, by name (exact)."""
    captions: _FileNames | None = None
    """The COCO file of references, for rule = "caption"."""
    images: _Folder | None = None
    """The folder that all image paths begin with; a run does not start without it."""
    image_folder: _Folder | None = None
    """The folder of the data folder that image paths start at, instead of `datasets/`."""
    format_line: Annotated[str, AfterValidator(_line)] | None = None
    """What every prompt ends with: appended to those of training and test records that lack it."""

    def apply(self, dataset: Dataset, folder: Path = Path()) -> Dataset:
        """The dataset as the file in its folder says it is. Raises FcitError naming the key at fault."""
        rule, captions = dataset.rule, _first(self.captions, folder, "")
        if self.rule or captions:
            kind = rules.find(self.rule) if self.rule else type(rule)
            if (kind is Caption) != bool(captions):
                raise FcitError('captions: belongs to rule = "caption", which needs it')
            rule = Caption(captions) if captions else kind()
        said = self.model_dump(include={"images", "image_folder", "format_line"}, exclude_none=True)
        return replace(
            dataset,
            train_file=_first(self.train, folder, dataset.train_file),
            test_file=_first(self.test, folder, dataset.test_file),
            rule=rule,
            **said,
        )


def _first(names: str | list[str] | None, folder: Path, default: str) -> str:
    """The first of several file names that is there, also as .jsonl."""
    if not isinstance(names, list):
        return names or default
    paths = [(folder / name, name) for name in names]
    there = [name for path, name in paths if path.is_file() or path.with_suffix(".jsonl").is_file()]
    return (there or names or [default])[0]


def read(path: Path) -> DatasetFile:
    """Read a `dataset.toml`. Raises FcitError naming the file and key at fault."""
    table = read_toml(path)
    try:
        return DatasetFile.model_validate(table)
    except ValidationError as error:
        fault, message = error.errors()[0], readable(error.errors()[0])
        if fault["type"] == "extra_forbidden":
            message = f"unknown key; there are {', '.join(DatasetFile.model_fields)}"
        key = ".".join(str(part) for part in fault["loc"] if "[" not in str(part))
        raise FcitError(f"{path}: {key}: {message}") from None


def write(path: Path, dataset: Dataset) -> None:
    """Write a `dataset.toml` that says all of a dataset, with a rule of the package's."""
    import tomli_w

    table = {
        "train": dataset.train_file,
        "test": dataset.test_file,
        "rule": rules.title(dataset.rule),
        "captions": dataset.rule.file if isinstance(dataset.rule, Caption) else "",
        "images": dataset.images,
        "image_folder": dataset.image_folder,
        "format_line": dataset.format_line,
    }
    write_text(path, tomli_w.dumps({key: value for key, value in table.items() if value}))
