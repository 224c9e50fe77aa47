"""A dataset and its scoring rule are one object; the benchmark's twelve; what a `dataset.toml` says."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from unicodedata import normalize

from fcit.benchmark import dataset_file, records
from fcit.benchmark.records import BadRecord
from fcit.benchmark.rules import load
from fcit.benchmark.rules.base import Accuracy, Mode, Rule
from fcit.benchmark.rules.exact import Exact
from fcit.files import below, is_plain_name, read_toml, write_json
from fcit.types import FcitError, Sample

Split = Literal["train", "test"]

NO_RULES: Mapping[str, Rule] = MappingProxyType({})


@dataclass(frozen=True)
class Dataset:
    """Where a dataset's files are, and how its answers are scored."""

    name: str
    folder: str
    """Below `instructions/`."""
    train_file: str = "train.json"
    test_file: str = "test.json"
    rule: Rule = field(default_factory=Exact)
    images: str = ""
    """The first folder of its image paths, below `datasets/`; empty: they have no common one."""

    def file(self, root: Path, split: Split) -> Path:
        """The file of its training or test records."""
        folder = below(root / "instructions", self.folder)
        return below(folder, {"train": self.train_file, "test": self.test_file}[split])

    def parse(self, root: Path, split: Split) -> Iterator[Sample | BadRecord]:
        """Its samples in file order; a malformed record becomes a BadRecord.

        Raises FcitError for a malformed file.
        """
        path = self.file(root, split)
        if split == "train":
            yield from parse_training_file(path, lambda record: self)
            return
        rows = list(records.stream(path))
        truths = self.rule.truths(path, len(rows))
        yield from records.parse(
            path, rows, lambda row, at: records.test(row, at, self.name, truths(row, at))
        )

    def read(self, root: Path, split: Split) -> list[Sample]:
        """Its samples in file order; no image is opened.

        Raises FcitError naming the file, and the record (from 1) and field, at fault.
        """
        return records.sound(self.parse(root, split))

    def write(
        self,
        root: Path,
        split: Split,
        samples: Sequence[Sample],
        further: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Write its training or test file, as `read` reads it. `further`: fields of every test record."""
        path = self.file(root, split)
        if split == "train":
            write_json(path, [records.training_record(sample) for sample in samples])
            return
        rows = [
            {"question_id": sample.id, "image": sample.image, "text": sample.prompt}
            | {self.rule.field: sample.answers[0], **further}
            for sample in samples
        ]
        write_json(path, rows)
        self.rule.write(path, samples)

    def score(self, answers: Sequence[str], samples: Sequence[Sample], mode: Mode) -> Accuracy:
        """Score one answer for each sample, in their order.

        Raises FcitError when their numbers differ or there are none, on a duplicate sample id (strict),
        and for captions in reference mode without Java.
        """
        if mode not in ("strict", "reference"):
            raise FcitError(f"evaluation.scoring: {mode!r}; there are strict and reference")
        if len(answers) != len(samples):
            raise FcitError(
                f"{self.name}: {len(answers)} predictions for {len(samples)} samples; "
                "every sample needs one"
            )
        if not samples:
            raise FcitError(f"{self.name}: no samples to score")
        if mode == "strict":
            self.check_ids(samples)
        composed = [normalize("NFC", answer) for answer in answers]  # as the samples' texts are
        return self.rule.score(composed, [sample.answers for sample in samples], mode)

    def chance(self, train: Sequence[Sample], test: Sequence[Sample], mode: Mode) -> float:
        """Percent of the best constant answer: the training answer that scores most on the test samples.

        Raises FcitError as `score` does, and when there is no training answer.
        """
        answers = Counter(sample.answers[0] for sample in train)
        if not answers:
            raise FcitError(f"{self.name}: no training samples to take a constant answer from")
        truths = [sample.answers for sample in test]
        best = self.rule.best_constant(answers, truths, mode) if truths else ""
        return self.score([best] * len(test), test, mode).percent

    def check_ids(self, samples: Sequence[Sample]) -> None:
        """Raise FcitError where test samples share an id."""
        for name, count in Counter(sample.id for sample in samples).most_common(1):
            if count > 1:
                raise FcitError(
                    f"{self.name}: {count} samples have the id {name!r}; ids must differ"
                )


OFFICIAL = read_toml(Path(__file__).with_name("official.toml"))
"""The benchmark's datasets, capability groups and settings."""

DATASETS: dict[str, Dataset] = {
    name: dataset_file.DatasetFile(**table).apply(Dataset(name, folder))
    for name, table in OFFICIAL["datasets"].items()
    for folder in [table.pop("folder", name)]
}
"""The benchmark's datasets by name."""


def find(name: str, root: Path | None = None, own: Mapping[str, Rule] = NO_RULES) -> Dataset:
    """The dataset of a name: the benchmark's, or else a folder of that name, scored exactly.

    Where a `dataset.toml` stands in its folder below `root`, that decides; `own` are scoring rules of
    your own by dataset, which go before it. Raises FcitError on a name that is no folder's, and for a
    malformed `dataset.toml`.
    """
    name = normalize("NFC", name)
    if name in DATASETS:
        dataset = DATASETS[name]
    elif not is_plain_name(name):
        raise FcitError(f"{name!r} cannot be a dataset: its name must be that of a folder")
    else:
        dataset = Dataset(name, name)
    if root and (path := dataset.file(root, "test").with_name("dataset.toml")).is_file():
        dataset = dataset_file.applied(path, dataset)
    return replace(dataset, rule=own[name]) if name in own else dataset


def read(root: Path, name: str, split: Split) -> list[Sample]:
    """The samples of a dataset of a data folder; see `Dataset.read`."""
    return find(name, root).read(root, split)


def parse_training_file(
    path: Path, tell: Callable[[dict[str, Any]], Dataset]
) -> Iterator[Sample | BadRecord]:
    """The samples of a file of training records, one by one; `tell` gives a record's dataset (or raises
    RecordError). Raises FcitError for a file that cannot be read."""

    def read(record: dict[str, Any], at: int) -> Sample:
        dataset = tell(record)
        sample = records.training(record, at, dataset.name)
        for answer in (*sample.answers, *(answer for _, answer in sample.more)):
            dataset.rule.check(answer)
        return sample

    return records.parse(path, records.stream(path), read)


def present(root: Path) -> list[str]:
    """The datasets that have a folder below `instructions/`: the benchmark's first, then your own."""
    folders = sorted(path for path in (root / "instructions").glob("[!.]*") if path.is_dir())
    names = [normalize("NFC", path.name) for path in folders]
    known = {dataset.folder: dataset.name for dataset in DATASETS.values()}
    here = [name for folder, name in known.items() if folder in names]
    return here + [name for name in names if name not in known]


def require_folder(root: Path) -> None:
    """Raise FcitError where a path is not that of a data folder."""
    if not root.is_dir():
        raise FcitError(f"{root}: no such folder")
    if not any((root / part).is_dir() for part in ("instructions", "datasets")):
        raise FcitError(
            f"{root}: this is not a data folder (it has no instructions/ and datasets/)"
        )


def own_rules(root: Path, files: Mapping[str, str], source: str) -> dict[str, Rule]:
    """The rules in files of your own, by dataset. Raises FcitError naming `source`, as for a dataset that
    the data folder does not have."""
    here = present(root) if files else []
    if unknown := next((name for name in files if normalize("NFC", name) not in here), None):
        has = ", ".join(here) or "(none)"
        raise FcitError(f"{source}: {root} has no dataset {unknown!r}; it has {has}")
    return load(files, source)


def image_folders(root: Path, images: Sequence[Path] = ()) -> tuple[Path, ...]:
    """The folders that image paths start at, tried in order: `images`, or `datasets/` of the root."""
    return tuple(images) or (root / "datasets",)


def image_path(root: Path, sample: Sample, images: Sequence[Path] = ()) -> Path:
    """Where a sample's image is: in the first folder that has it (in none: where it should be)."""
    return locate(root, sample.image, images)


def locate(root: Path, image: str, images: Sequence[Path] = ()) -> Path:
    """Where the image of a record's path is (see `image_path`)."""
    paths = [below(folder, image) for folder in image_folders(root, images)]
    if len(paths) == 1:
        return paths[0]
    return next((path for path in paths if path.is_file()), paths[0])


def require_images(samples: Sequence[Sample], paths: Sequence[Path]) -> None:
    """Raise FcitError naming the first sample whose image is missing."""
    for sample, path in zip(samples, paths, strict=True):
        if not path.is_file():
            where = f"{sample.dataset}, sample {sample.id}"
            raise FcitError(f"{where}: {path}: no such image{other_case(path)}")


def other_case(path: Path) -> str:
    """Of a path that is missing: `; there is ...` where only its capitals are others."""
    there = next(above for above in path.absolute().parents if above.is_dir())
    for part in path.absolute().relative_to(there).parts:
        if part.casefold() not in (names := _by_casefold(there)):
            return ""
        there /= names[part.casefold()]
    return f"; there is {there}"


@lru_cache(maxsize=4)
def _by_casefold(folder: Path) -> dict[str, str]:
    return {path.name.casefold(): path.name for path in folder.glob("*")}


def missing(
    root: Path, datasets: Sequence[Dataset], images: Sequence[Path] = ()
) -> dict[str, list[str]]:
    """Which files and folders these datasets need and do not have, by dataset; relative to `root`,
    image folders to one of `images` where these are given."""
    absent: dict[str, list[str]] = {}
    for dataset in datasets:
        paths = {split: dataset.file(root, split) for split in ("train", "test")}
        files = [*paths.values(), *map(paths["test"].with_name, dataset.rule.files)]
        lacking = [path.relative_to(root).as_posix() for path in files if not path.is_file()]
        folders = image_folders(root, images)
        if dataset.images and not any((folder / dataset.images).is_dir() for folder in folders):
            lacking.append(dataset.images if images else f"datasets/{dataset.images}")
        if lacking:
            absent[dataset.name] = lacking
    return absent


def require(root: Path, datasets: Sequence[Dataset], images: Sequence[Path] = ()) -> None:
    """Raise an FcitError that names all datasets that are not whole and what they lack, in one line."""
    if absent := missing(root, datasets, images):
        lacks = "; ".join(f"{', '.join(files)} for {name}" for name, files in absent.items())
        where = (
            f" (image folders are looked for in {', '.join(map(str, images))})" if images else ""
        )
        here = [name for name in present(root) if name not in absent]
        raise FcitError(
            f"{root} lacks {lacks}{where}; it has the datasets {', '.join(here) or '(none)'}"
        )
