"""A dataset and its scoring rule are one object; the benchmark's twelve; what a `dataset.toml` says."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from unicodedata import normalize

from fcit.benchmark import dataset_file, layout, records
from fcit.benchmark.records import BadRecord
from fcit.benchmark.rules import load
from fcit.benchmark.rules.base import Accuracy, Mode, Rule
from fcit.benchmark.rules.exact import Exact
from fcit.files import below, is_plain_name, read_toml, write_json
from fcit.types import FcitError, Sample, naming

Split = Literal["train", "test"]

NO_RULES: Mapping[str, Rule] = MappingProxyType({})


@dataclass(frozen=True)
class Dataset:
    """Where a dataset's files are, and how its answers are scored."""

    name: str
    folder: str
    """Below `instructions/` (see `layout`)."""
    train_file: str = "train.json"
    test_file: str = "test.json"
    rule: Rule = field(default_factory=Exact)
    images: str = ""
    """The first folder of its image paths; empty: they have no common one."""
    image_folder: str = ""
    """The folder of the data folder that its image paths start at; empty: `datasets/`."""
    format_line: str = ""
    """What every prompt ends with; appended where it is not there."""

    def path(self, root: Path) -> Path:
        """The folder of its records."""
        return below(layout.instructions(root), self.folder)

    def file(self, root: Path, split: Split) -> Path:
        """The file of its training or test records, which may also end in .jsonl."""
        name = {"train": self.train_file, "test": self.test_file}[split]
        return layout.as_lines(below(self.path(root), name))

    def image_folders(self, root: Path, images: Sequence[Path] = ()) -> tuple[Path, ...]:
        """The folders that its image paths start at, tried in order. `images`: instead of `datasets/`."""
        if self.image_folder:
            return (root / self.image_folder, *images)
        return tuple(images) or layout.images(root) or (self.path(root),)

    def formed(self, sample: Sample) -> Sample:
        """A sample whose prompts end with the format line."""
        if not (line := self.format_line):
            return sample

        def ended(prompt: str) -> str:
            there = prompt.endswith(line) or line in prompt.splitlines()
            return prompt if there else f"{prompt}\n{line}"

        more = tuple((ended(prompt), answer) for prompt, answer in sample.more)
        return replace(sample, prompt=ended(sample.prompt), more=more)

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
            path,
            rows,
            lambda row, at: self.formed(records.test(row, at, self.name, truths(row, at))),
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
        """Score one answer for each sample, in their order. Of samples with one id (reference) the last
        one's truth counts, as in the published scripts, but for captions.

        Raises FcitError when their numbers differ or there are none, on a duplicate sample id (strict),
        and for captions in reference mode without Java.
        """
        if mode not in ("strict", "reference"):
            raise FcitError(f"evaluation.scoring: {mode!r}; there are strict and reference")
        if len(answers) != len(samples):
            counts = f"{len(answers)} predictions for {len(samples)} samples"
            raise FcitError(f"{self.name}: {counts}; every sample needs one")
        if not samples:
            raise FcitError(f"{self.name}: no samples to score")
        if mode == "strict":
            self.check_ids(samples)
        composed = [normalize("NFC", answer) for answer in answers]  # as the samples' texts are
        last = {sample.id: sample.answers for sample in samples}
        truths = [last[s.id] if self.rule.by_id else s.answers for s in samples]
        return self.rule.score(composed, truths, mode)

    def chance(self, train: Sequence[Sample], test: Sequence[Sample], mode: Mode) -> float:
        """Percent of the best constant answer: the training answer that scores most on the test samples.

        Raises FcitError as `score` does, and when there is no training answer.
        """
        best = self.best_constant(Counter(records.spoken(train)), test, mode)
        return self.score([best] * len(test), test, mode).percent

    def best_constant(self, answers: Counter[str], test: Sequence[Sample], mode: Mode) -> str:
        """The training answer that scores most on the test samples. Raises FcitError without one."""
        if not answers:
            raise FcitError(f"{self.name}: no training samples to take a constant answer from")
        truths = [sample.answers for sample in test]
        best = self.rule.best_constant(answers, truths, mode) if truths else next(iter(answers))
        if best not in answers:
            raise FcitError(
                f"{self.name}: best_constant gave {best!r}, which is no training answer"
            )
        return best

    def check_ids(self, samples: Sequence[Sample]) -> None:
        """Raise FcitError where test samples share an id."""
        for name, count in Counter(sample.id for sample in samples).most_common(1):
            if count > 1:
                hint = "ids must differ (fcit data check names the records)"
                raise FcitError(f"{self.name}: {count} samples have the id {name!r}; {hint}")


OFFICIAL = read_toml(Path(__file__).with_name("official.toml"))
"""The benchmark's datasets, capability groups and settings."""

DATASETS: dict[str, Dataset] = {
    name: dataset_file.DatasetFile(**table).apply(Dataset(name, folder))
    for name, table in OFFICIAL["datasets"].items()
    for folder in [table.pop("folder", name)]
}
"""The benchmark's datasets by name."""

NEIGHBOURS: dict[str, dict[str, dict[str, Any]]] = {}
"""What is known of datasets of other benchmarks: by dataset, then by benchmark."""
for _benchmark, _tables in read_toml(Path(__file__).with_name("neighbours.toml")).items():
    for _name, _table in _tables.items():
        NEIGHBOURS.setdefault(_name, {})[_benchmark] = _table


def reserved() -> set[str]:
    """Names that data of one's own may not have: the benchmark's datasets and their folders."""
    return {*DATASETS, *(dataset.folder for dataset in DATASETS.values())}


def find(name: str, root: Path | None = None, own: Mapping[str, Rule] = NO_RULES) -> Dataset:
    """The dataset of a name: the benchmark's, or else a folder of that name, scored exactly.

    What a data folder of another benchmark makes of the name (see `neighbours.toml`) goes before that,
    then the `dataset.toml` in the dataset's folder below `root`, then `own`: scoring rules of your own by
    dataset. Raises FcitError on a name that is no folder's, and for a malformed `dataset.toml`.
    """
    name = normalize("NFC", name)
    plain = is_plain_name(name) and "," not in name  # logs join names by commas
    if name not in DATASETS and not plain:
        raise FcitError(
            f"{name!r} cannot be a dataset: its name must be that of a folder, without a comma"
        )
    dataset = DATASETS.get(name) or Dataset(name, name)
    if root:
        dataset = _of_root(dataset, root)
    return replace(dataset, rule=own[name]) if name in own else dataset


def _of_root(dataset: Dataset, root: Path) -> Dataset:
    """The dataset as a data folder has it."""
    name, parent = dataset.name, layout.instructions(root)
    table = _neighbour(name, root)
    folders = [*listed(table.get("folder", ())), dataset.folder, name]
    there = (folder for folder in folders if below(parent, folder).is_dir())
    folder = next(there, folders[0])
    path = below(parent, folder) / "dataset.toml"
    said = dataset_file.read(path) if path.is_file() else None
    if said and said.benchmark:
        if said.benchmark not in NEIGHBOURS.get(name, {}):
            raise FcitError(f"{path}: benchmark: {said.benchmark} has no dataset {name}")
        table = NEIGHBOURS[name][said.benchmark]
    if table:
        facts = {key: value for key, value in table.items() if key != "folder"}
        dataset = dataset_file.DatasetFile(**facts).apply(Dataset(name, folder), path.parent)
    dataset = replace(dataset, folder=folder)
    if said:
        with naming(str(path)):
            dataset = said.apply(dataset, path.parent)
    return dataset


def _neighbour(name: str, root: Path) -> dict[str, Any]:
    """What the benchmark that a data folder is of says of a dataset; empty where it is of none.

    UCIT: datasets' folders beside `datasets/`, or files of 3000 questions. MLLM-DCL: datasets' folders
    in the root, with their images.
    """
    tables = NEIGHBOURS.get(name, {})
    if not tables:
        return {}
    parent, apart = layout.instructions(root), layout.images(root)
    flat = parent == root
    if ucit := tables.get("ucit"):
        folders = [below(parent, folder) for folder in listed(ucit.get("folder", name))]
        if (flat and apart) or any([*folder.glob("*_3000.json*")] for folder in folders):
            return ucit
    return tables.get("mllm-dcl", {}) if flat and not apart else {}


def listed(value: str | Sequence[str]) -> Sequence[str]:
    """A value of a TOML table that may be a single name, as names."""
    return [value] if isinstance(value, str) else value


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
        for answer in records.spoken([sample]):
            dataset.rule.check(answer)
        return dataset.formed(sample)

    return records.parse(path, records.stream(path), read)


def present(root: Path) -> list[str]:
    """The datasets that a data folder has a folder of records for: the benchmark's first, then others."""
    folders = layout.folders(root)
    known = {dataset.folder: name for name, dataset in DATASETS.items()}
    known |= {
        folder: name
        for name, tables in NEIGHBOURS.items()
        for table in tables.values()
        for folder in listed(table.get("folder", name))
        if folder in folders and _neighbour(name, root)
    }
    names = dict.fromkeys(known.get(folder, folder) for folder in folders)
    return [name for name in DATASETS if name in names] + [
        name for name in names if name not in DATASETS
    ]


def own_rules(root: Path, files: Mapping[str, str], source: str) -> dict[str, Rule]:
    """The rules in files of your own, by dataset. Raises FcitError naming `source`, as for a dataset that
    the data folder does not have."""
    here = present(root) if files else []
    if unknown := next((name for name in files if normalize("NFC", name) not in here), None):
        has = ", ".join(here) or "(none)"
        raise FcitError(f"{source}: {root} has no dataset {unknown!r}; it has {has}")
    return load(files, source)


def image_path(root: Path, sample: Sample, images: Sequence[Path] = ()) -> Path:
    """Where a sample's image is (see `layout.locate`)."""
    return layout.locate(find(sample.dataset, root).image_folders(root, images), sample.image)
