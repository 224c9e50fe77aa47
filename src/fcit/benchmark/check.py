"""Validate a data folder: every record and every image, everything that is wrong at once."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fcit.benchmark import datasets, layout, published
from fcit.benchmark.datasets import DATASETS, NO_RULES, Dataset, Split
from fcit.benchmark.pictures import contents
from fcit.benchmark.records import BadRecord
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

    def blame(self, entry: "_Entry", what: str) -> None:
        """Report a record."""
        self.bad.setdefault(entry.file, set()).add(entry.number)
        self.problems.append(entry.problem(what))

    @contextmanager
    def faults(self, root: Path) -> Iterator[None]:
        """Reports an FcitError, which begins with the path of the file at fault, and goes on."""
        try:
            yield
        except FcitError as error:
            parts = re.split(": |, ", str(error).removeprefix(f"{root}/"), maxsplit=1)
            file, what = [*parts, ""][:2]
            if (problem := Problem(file, "", what)) not in self.problems:
                self.problems.append(problem)


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
    names: Sequence[str] | None = None,
    images: Sequence[Path] = (),
    rules: Mapping[str, Rule] = NO_RULES,
    watch: Watch | None = None,
    of_client: bool = False,
) -> Report:
    """Check the datasets below `root` (those of `names`, or all) that have an instruction folder.

    Reported are unreadable files, malformed records, ids that a test file repeats, image paths that
    leave `datasets/`, images that are missing or cannot be decoded to the end, and test samples whose
    image content and prompt are also in training data. The published split (`partitioned_data/`) is
    read too: its records are training records, those of the training files or others, which are then
    checked like them. `images` are folders to look for images in instead of `datasets/`; `rules` are
    rules of your own by dataset; `of_client`: it is one client's folder, whose datasets may lack a file.
    Raises FcitError for a root that is not a folder or an unknown name.
    """
    layout.require_folder(root)
    there, watch = datasets.present(root), watch or Silent()
    wanted = list(dict.fromkeys([*DATASETS, *there])) if names is None else list(names)
    here = [name for name in wanted if name in there]
    splits = [
        (folder, task)
        for folder, task in published.folders(root)
        if names is None or (task and set(task.datasets) <= set(names))
    ]
    report = Report(absent=[name for name in wanted if name not in here])
    found: dict[str, Dataset] = {}
    for name in here:
        report.counts[name] = {}
        with report.faults(root):
            found[name] = datasets.find(name, root, rules)
            report.rules[name] = title(found[name].rule)

    starts = {name: each.image_folders(root, images) for name, each in found.items()}

    def place(sample: Sample) -> Path:
        start = starts.get(sample.dataset)
        return (
            layout.locate(start, sample.image)
            if start
            else datasets.image_path(root, sample, images)
        )

    entries: list[_Entry] = []
    taught: set[bytes] = set()
    if not here:
        report.problems.append(Problem("instructions", "", "holds none of the datasets' folders"))
    with watch.bar("datasets", len(here) + len(splits)) as step:
        for done, dataset in enumerate(found.values(), 1):
            entries += _dataset(
                root, dataset, dataset.name in rules, taught, report, of_client, place
            )
            step(done)
        for done, (folder, task) in enumerate(splits, len(here) + 1):
            entries += _published(root, folder, task, taught, report, place)
            step(done)
    lacking = sorted({path for start in starts.values() for path in start if not path.is_dir()})
    for folder in lacking:
        name = str(folder).removeprefix(f"{root}/")
        report.problems.append(Problem(name, "", "no such folder; the images belong there"))
    if not lacking:
        first = {entry.path: entry for entry in reversed(entries)}
        shown = contents({entry.path: Path(entry.path) for entry in entries}, watch)
        faults = {path: what for path, what in shown.items() if isinstance(what, str)}
        for path, what in faults.items():
            entry = first[path]
            report.blame(entry, f"image {entry.image!r}: {what}")
        report.broken.update(faults)
        _leaks([entry for entry in entries if entry.path not in faults], shown, report)
    return report


def _dataset(
    root: Path,
    dataset: Dataset,
    own_rule: bool,
    taught: set[bytes],
    report: Report,
    of_client: bool,
    place: Callable[[Sample], Path],
) -> list[_Entry]:
    """Report on a dataset's two files, and return its readable records; `taught` gets digests."""
    entries: list[_Entry] = []
    for split in ("train", "test"):
        readable: list[_Entry] = []
        with report.faults(root):
            path, samples = dataset.file(root, split), dataset.parse(root, split)
            if of_client and not path.is_file():
                continue
            for entry, sample in _readable(root, path, samples, split, report, place):
                if split == "test" and own_rule and not readable:
                    report.problems.extend(_misjudged(dataset.rule, entry, sample))
                readable.append(entry)
                if split == "train":
                    taught.add(_digest(sample))
        report.counts[dataset.name][split] = len(readable)
        if split == "test":  # training records may share an id, often their image's
            _repeats(readable, report)
        entries += readable
    return entries


def _misjudged(rule: Rule, entry: _Entry, sample: Sample) -> Iterator[Problem]:
    """What a rule of one's own makes of answers that any model may give: raising is a problem."""
    try:
        rule.score(["", "a word"], [sample.answers] * 2, "strict")
    except FcitError as error:
        yield entry.problem(str(error))


def _readable(
    root: Path,
    path: Path,
    samples: Iterable[Sample | BadRecord],
    split: Split,
    report: Report,
    place: Callable[[Sample], Path],
) -> Iterator[tuple[_Entry, Sample]]:
    """The readable records of a file; the others are reported."""
    file = path.relative_to(root).as_posix()
    for number, sample in enumerate(samples, 1):
        if isinstance(sample, BadRecord):
            report.problems.append(Problem(file, f"record {sample.record}", sample.what))
        else:
            prompt = hashlib.blake2b(repr(sample.prompt).encode(), digest_size=16).digest()
            image = sample.image, str(place(sample))
            yield _Entry(file, number, split, sample.id, *image, prompt), sample


def _published(
    root: Path,
    folder: Path,
    task: Task | None,
    taught: set[bytes],
    report: Report,
    place: Callable[[Sample], Path],
) -> list[_Entry]:
    """Report on a task's client files; the records that no training file has are to be checked too."""
    name, files = folder.relative_to(root).as_posix(), published.client_files(folder)
    if task is None:
        what = "is of none of the benchmark's tasks and betas"
        report.problems.append(Problem(name, "", what))
        report.published[name] = PublishedSplit("?", len(files), 0, 0, 0)
        return []
    gap = next((client for client in range(len(files)) if client not in files), None)
    if gap is not None or not files:
        what = f"has {len(files)} client files, but no client_{gap or 0}.json"
        report.problems.append(Problem(name, "", what))
    records, foreign = 0, list[_Entry]()
    for path in files.values():
        samples = datasets.parse_training_file(path, published.dataset_teller(root, task))
        with report.faults(root):
            for entry, sample in _readable(root, path, samples, "train", report, place):
                records += 1
                if _digest(sample) not in taught:
                    foreign.append(entry)
    training = sum(report.counts.get(name, {}).get("train", 0) for name in task.datasets)
    report.published[name] = PublishedSplit(task.name, len(files), records, len(foreign), training)
    return foreign


def _digest(sample: Sample) -> bytes:
    """A digest of all that a training record teaches."""
    parts = (sample.dataset, sample.image, sample.prompt, sample.answers, sample.more)
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def _repeats(entries: list[_Entry], report: Report) -> None:
    first: dict[str, int] = {}
    for entry in entries:
        number = first.setdefault(entry.id, entry.number)
        if number != entry.number:
            report.blame(entry, f"its id is also that of record {number}")


def _leaks(entries: Sequence[_Entry], shown: Mapping[str, bytes | str], report: Report) -> None:
    """Report test samples that are training samples, also of another dataset."""
    trained: dict[tuple[bytes | str, bytes], _Entry] = {}
    for entry in entries:
        if entry.split == "train":
            trained.setdefault((shown[entry.path], entry.prompt), entry)
    for entry in entries:
        twin = trained.get((shown[entry.path], entry.prompt))
        if twin and entry.split == "test":
            what = f"is also a training sample: {twin.file}, record {twin.number} (id {twin.id})"
            report.blame(entry, what)
