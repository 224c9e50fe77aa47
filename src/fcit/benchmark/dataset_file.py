"""`instructions/NAME/dataset.toml`: what a data folder may say of a dataset, none of which is code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from fcit.benchmark import records, rules
from fcit.benchmark.rules.caption import Caption
from fcit.files import is_plain_name, read_toml
from fcit.types import FcitError, naming, readable

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


_FileName = Annotated[str, AfterValidator(_file_name)]


class DatasetFile(BaseModel):
    """What `instructions/NAME/dataset.toml` may say; what it leaves out is as without it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    train: _FileName | None = None
    """The file of training records (train.json)."""
    test: _FileName | None = None
    """The file of test records (test.json)."""
    rule: str | None = None
    """The scoring rule, by name (exact)."""
    captions: _FileName | None = None
    """The COCO file of references, for rule = "caption"."""
    images: Annotated[str, AfterValidator(_folder)] | None = None
    """The folder below `datasets/` that all image paths begin with; a run does not start without it."""

    def apply(self, dataset: Dataset) -> Dataset:
        """The dataset as the file says it is. Raises FcitError naming the key at fault."""
        rule = dataset.rule
        if self.rule or self.captions:
            kind = rules.find(self.rule) if self.rule else type(rule)
            if (kind is Caption) != bool(self.captions):
                raise FcitError('captions: belongs to rule = "caption", which needs it')
            rule = Caption(self.captions) if self.captions else kind()
        return replace(
            dataset,
            train_file=self.train or dataset.train_file,
            test_file=self.test or dataset.test_file,
            images=dataset.images if self.images is None else self.images,
            rule=rule,
        )


def applied(path: Path, dataset: Dataset) -> Dataset:
    """A dataset as its `dataset.toml` says it is. Raises FcitError naming the file and key at fault."""
    table = read_toml(path)
    with naming(str(path)):
        try:
            return DatasetFile.model_validate(table).apply(dataset)
        except ValidationError as error:
            fault, message = error.errors()[0], readable(error.errors()[0])
            if fault["type"] == "extra_forbidden":
                message = f"unknown key; there are {', '.join(DatasetFile.model_fields)}"
            raise FcitError(f"{'.'.join(map(str, fault['loc']))}: {message}") from None
