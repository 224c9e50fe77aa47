"""Validate a data folder: every record and every image, everything that is wrong at once."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fcit.benchmark import datasets, layout, published
from fcit.benchmark.datasets import DATASETS, NO_RULES, Dataset, Split
from fcit.benchmark.pictures import contents
from fcit.benchmark.records import BadRecord, spoken
from fcit.benchmark.rules import Rule, title
from fcit.types import FcitError, Sample, Task
from fcit.watch import Silent, Watch


@dataclass(frozen=True)
class Problem:
    """Something that is wrong."""

    file: str
    """Relative to the data folder."""
    record: str
    """Empty where it concerns the file."""
    what: str


@dataclass(frozen=True)
class PublishedSplit:
    """A task's published split."""

    task: str
    clients: int
    """Client files."""
    records: int
    """Readable records in them."""
    foreign: int
    """Those that are not in the training files."""
    training: int
    """Records of the training files."""


@dataclass(frozen=True)
class Report:
    """What a check found."""

    problems: list[Problem] = field(default_factory=list[Problem])
    counts: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    """Readable records by dataset and split; without splits where its dataset.toml cannot be read."""
    rules: dict[str, str] = field(default_factory=dict[str, str])
    """The scoring rule by dataset, of those that were read."""
    absent: list[str] = field(default_factory=list[str])
    """Datasets that are not there."""
    published: dict[str, PublishedSplit] = field(default_factory=dict[str, PublishedSplit])
    """By folder."""
    bad: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    """The numbers of the records at fault, by file."""
    broken: set[str] = field(default_factory=set[str])
    """The paths of the images that are missing or cannot be decoded."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a check remembers of a sample."""

    file: str
    number: int
    split: Split
    id: str
    image: str
    path: str
    """Where the image is."""
    prompt: bytes

    def problem(self, what: str) -> Problem:
        return Problem(self.file, f"record {self.number} (id {self.id})", what)


def check(
    root: Path,
    images: Sequence[Path] = (),
    rules: Mapping[str, Rule] = NO_RULES,
    watch: Watch | None = None,
    of_client: bool = False,
) -> Report:
    """Check the datasets below `root` that have an instruction folder.

    Reported are unreadable files, malformed records, ids that a test file repeats, image paths that
    leave `datasets/`, images that are missing or cannot be decoded to the end, and test samples whose
    image content and prompt are also in training data. The published split (`partitioned_data/`) is
    read too: its records are training records, those of the training files or others, which are then
    checked like them. `images` are folders to look for images in instead of `datasets/`; `rules` are
    rules of your own by dataset; `of_client`: it is one client's folder, whose datasets may lack a file.
    Raises FcitError for a root that is not a data folder.
    """
    layout.require_folder(root)
    return _Check(root, images, rules, of_client).run(watch or Silent())


class _Check:
    """The check of one data folder."""

    def __init__(
        self, root: Path, images: Sequence[Path], rules: Mapping[str, Rule], of_client: bool
    ):
        self.root, self.images, self.rules, self.of_client = root, images, rules, of_client
        self.report = Report()
        self.starts: dict[str, tuple[Path, ...]] = {}
        """The folders that each dataset's image paths start at."""
        self.taught: set[bytes] = set()
        """Digests of the training files' records."""

    def run(self, watch: Watch) -> Report:
        names, splits = datasets.present(self.root), [*published.folders(self.root)]
        self.report.absent.extend(name for name in DATASETS if name not in names)
        if not names:
            none = Problem("instructions", "", "holds none of the datasets' folders")
            self.report.problems.append(none)
        found: list[Dataset] = []
        for name in names:
            self.report.counts[name] = {}
            with self._faults():
                dataset = datasets.find(name, self.root, self.rules)
                self.report.rules[name] = title(dataset.rule)
                self.starts[name] = dataset.image_folders(self.root, self.images)
                found.append(dataset)
        entries: list[_Entry] = []
        with watch.bar("datasets", len(names) + len(splits)) as step:
            for done, dataset in enumerate(found, 1):
                entries += self._dataset(dataset)
                step(done)
            for done, (folder, task) in enumerate(splits, len(names) + 1):
                entries += self._published(folder, task)
                step(done)
        self._check_images(entries, watch)
        return self.report

    def _dataset(self, dataset: Dataset) -> list[_Entry]:
        """Report on a dataset's two files, and return its readable records."""
        entries: list[_Entry] = []
        answers, own_rule = Counter[str](), dataset.name in self.rules
        for split in ("train", "test"):
            readable: list[_Entry] = []
            with self._faults():
                path = dataset.file(self.root, split)
                samples = dataset.parse(self.root, split)
                if self.of_client and not path.is_file():
                    continue
                for entry, sample in self._readable(path, samples, split):
                    if split == "test" and own_rule and not readable:
                        self.report.problems.extend(_misjudged(dataset, answers, entry, sample))
                    readable.append(entry)
                    if split == "train":
                        self.taught.add(_digest(sample))
                        answers.update(spoken([sample]) if own_rule else ())
            self.report.counts[dataset.name][split] = len(readable)
            if split == "test":  # training records may share an id, often their image's
                self._repeats(readable)
            entries += readable
        return entries

    def _published(self, folder: Path, task: Task | None) -> list[_Entry]:
        """Report on a task's client files; the records that no training file has are to be checked
        too."""
        name, files = folder.relative_to(self.root).as_posix(), published.client_files(folder)
        if task is None:
            what = "is of none of the benchmark's tasks and betas"
            self.report.problems.append(Problem(name, "", what))
            self.report.published[name] = PublishedSplit("?", len(files), 0, 0, 0)
            return []
        gap = next((client for client in range(len(files)) if client not in files), None)
        if gap is not None or not files:
            what = f"has {len(files)} client files, but no client_{gap or 0}.json"
            self.report.problems.append(Problem(name, "", what))
        records, foreign = 0, list[_Entry]()
        with self._faults():
            tell = published.dataset_teller(self.root, task)
            for path in files.values():
                with self._faults():
                    samples = datasets.parse_training_file(path, tell)
                    for entry, sample in self._readable(path, samples, "train"):
                        records += 1
                        if _digest(sample) not in self.taught:
                            foreign.append(entry)
        counts = [self.report.counts.get(dataset, {}) for dataset in task.datasets]
        training = sum(count.get("train", 0) for count in counts)
        split = PublishedSplit(task.name, len(files), records, len(foreign), training)
        self.report.published[name] = split
        return foreign

    def _readable(
        self, path: Path, samples: Iterable[Sample | BadRecord], split: Split
    ) -> Iterator[tuple[_Entry, Sample]]:
        """The readable records of a file; the others are reported."""
        file = path.relative_to(self.root).as_posix()
        for number, sample in enumerate(samples, 1):
            if isinstance(sample, BadRecord):
                where = f"record {sample.record}"
                self.report.problems.append(Problem(file, where, sample.what))
            else:
                prompt = hashlib.blake2b(repr(sample.prompt).encode(), digest_size=16).digest()
                image = sample.image, str(self._place(sample))
                yield _Entry(file, number, split, sample.id, *image, prompt), sample

    def _place(self, sample: Sample) -> Path:
        """Where a sample's image should be."""
        if start := self.starts.get(sample.dataset):
            return layout.locate(start, sample.image)
        return datasets.image_path(self.root, sample, self.images)

    def _repeats(self, entries: list[_Entry]) -> None:
        """Report test records with the id of an earlier one."""
        first: dict[str, int] = {}
        for entry in entries:
            number = first.setdefault(entry.id, entry.number)
            if number != entry.number:
                self._blame(entry, f"its id is also that of record {number}")

    def _check_images(self, entries: Sequence[_Entry], watch: Watch) -> None:
        """Report images that are missing or cannot be decoded, and leaks between those that can."""
        starts = {path for folders in self.starts.values() for path in folders}
        lacking = sorted(path for path in starts if not path.is_dir())
        for folder in lacking:
            name = str(folder).removeprefix(f"{self.root}/")
            what = "no such folder; the images belong there"
            self.report.problems.append(Problem(name, "", what))
        if lacking:
            entries = [e for e in entries if not any(map(Path(e.path).is_relative_to, lacking))]
        first = {entry.path: entry for entry in reversed(entries)}
        shown = contents({entry.path: Path(entry.path) for entry in entries}, watch)
        faults = {path: what for path, what in shown.items() if isinstance(what, str)}
        for path, what in faults.items():
            self._blame(first[path], f"image {first[path].image!r}: {what}")
        self.report.broken.update(faults)
        self._leaks([entry for entry in entries if entry.path not in faults], shown)

    def _leaks(self, entries: Sequence[_Entry], shown: Mapping[str, bytes | str]) -> None:
        """Report test samples that are training samples, also of another dataset."""
        trained: dict[tuple[bytes | str, bytes], _Entry] = {}
        for entry in entries:
            if entry.split == "train":
                trained.setdefault((shown[entry.path], entry.prompt), entry)
        for entry in entries:
            twin = trained.get((shown[entry.path], entry.prompt))
            if twin and entry.split == "test":
                where = f"{twin.file}, record {twin.number} (id {twin.id})"
                self._blame(entry, f"is also a training sample: {where}")

    def _blame(self, entry: _Entry, what: str) -> None:
        """Report a record."""
        self.report.bad.setdefault(entry.file, set()).add(entry.number)
        self.report.problems.append(entry.problem(what))

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Reports an FcitError, which begins with the path of the file at fault, or an OSError, and goes
        on."""
        try:
            yield
        except (FcitError, OSError) as error:
            denied = isinstance(error, OSError)
            said = f"{error.filename}: cannot be read: {error.strerror}" if denied else str(error)
            parts = re.split(": |, ", said.removeprefix(f"{self.root}/"), maxsplit=1)
            file, what = [*parts, ""][:2]
            if (problem := Problem(file, "", what)) not in self.report.problems:
                self.report.problems.append(problem)


def _misjudged(
    dataset: Dataset, answers: Counter[str], entry: _Entry, sample: Sample
) -> Iterator[Problem]:
    """What a rule of one's own makes of answers that any model may give, and of the training answers:
    raising is a problem."""
    try:
        dataset.rule.score(["", "a word"], [sample.answers] * 2, "strict")
        if answers:
            dataset.best_constant(answers, [sample], "strict")
    except FcitError as error:
        yield Problem(entry.file, "", str(error))


def _digest(sample: Sample) -> bytes:
    """A digest of all that a training record teaches."""
    parts = (sample.dataset, sample.image, sample.prompt, sample.answers, sample.more)
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
