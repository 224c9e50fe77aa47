"""A clean copy of a data folder: without the records that a check found at fault; images are links."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcit.benchmark import datasets, published, records
from fcit.benchmark.check import Report
from fcit.benchmark.datasets import NO_RULES, Dataset
from fcit.benchmark.layout import locate
from fcit.benchmark.records import BadRecord
from fcit.benchmark.rules import Rule
from fcit.files import folder_aside, write_json, write_lines
from fcit.types import FcitError, Sample


def repair(
    root: Path,
    report: Report,
    out: Path,
    images: Sequence[Path] = (),
    rules: Mapping[str, Rule] = NO_RULES,
) -> dict[str, int]:
    """Write the clean copy of a folder that `check` reported on, whole or not at all; return how many
    records each of its files lost.

    Images become symbolic links to the images of the records that are kept. Raises FcitError for an `out`
    that exists and is not empty, for a fault that no copy mends, and where a file would have no records
    left.
    """
    if fault := next((problem for problem in report.problems if not problem.record), None):
        raise FcitError(f"--fix: cannot mend {root}/{fault.file}: {fault.what}")
    found = {name: datasets.find(name, root, rules) for name in report.counts}
    with folder_aside(out) as aside:
        copy = _Copy(root, aside, report, images, found)
        for dataset in found.values():
            for name in ("dataset.toml", *dataset.rule.files):
                copy.whole(dataset.path(root) / name)
            for split in ("train", "test"):
                path = dataset.file(root, split)
                kept = copy.file(path, dataset.parse(root, split))
                if split == "test" and report.bad.get(path.relative_to(root).as_posix()):
                    dataset.rule.write(aside / path.relative_to(root), kept)
        for folder, task in published.folders(root):
            if task:  # a folder without one is a fault
                tell = published.dataset_teller(root, task)
                for path in published.client_files(folder).values():
                    copy.file(path, datasets.parse_training_file(path, tell))
    return copy.lost


@dataclass
class _Copy:
    """What is copied of a data folder."""

    root: Path
    aside: Path
    """Where the copy is made."""
    report: Report
    images: Sequence[Path]
    found: Mapping[str, Dataset]
    """The datasets with a folder of records, by name."""
    starts: dict[str, tuple[Path, ...]] = field(default_factory=dict[str, tuple[Path, ...]])
    """The folders that each dataset's image paths start at."""
    lost: dict[str, int] = field(default_factory=dict[str, int])
    """How many records each file lost."""

    def whole(self, path: Path) -> None:
        """A file as it is, if it is there."""
        copy = self.aside / path.relative_to(self.root)
        if path.is_file() and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)

    def file(self, path: Path, parsed: Iterable[Sample | BadRecord]) -> list[Sample]:
        """A file of records without those at fault, and links to the others' images."""
        name = path.relative_to(self.root).as_posix()
        bad, kept, rows = self.report.bad.setdefault(name, set()), list[Sample](), list[Any]()
        for number, (row, sample) in enumerate(zip(records.stream(path), parsed, strict=True), 1):
            if isinstance(sample, BadRecord) or number in bad:
                bad.add(number)
                continue
            if (name_of := sample.dataset) not in self.starts:
                dataset = self.found.get(name_of) or datasets.find(name_of, self.root)
                self.starts[name_of] = dataset.image_folders(self.root, self.images)
            image = locate(self.starts[name_of], sample.image)
            if str(image) in self.report.broken:
                bad.add(number)
                continue
            self._link(image, sample)
            kept.append(sample)
            rows.append(row)
        if not rows:
            raise FcitError(f"--fix: {path}: no record is left")
        if not bad:
            self.whole(path)
            return kept
        self.lost[name] = len(bad)
        write = write_lines if records.holds_lines(path) else write_json
        write(self.aside / name, rows)
        return kept

    def _link(self, image: Path, sample: Sample) -> None:
        if image.is_relative_to(self.root):
            link = self.aside / image.relative_to(self.root)
        else:
            start = datasets.find(sample.dataset, self.root).image_folders(self.root)[0]
            link = self.aside / start.relative_to(self.root) / sample.image
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(image.absolute())
