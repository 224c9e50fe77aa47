"""Counts the samples of a run: read from the data, or computed where the mini suite is not made yet."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fcit import suite
from fcit.benchmark import datasets, missing
from fcit.rounds.client import Data
from fcit.types import Sample, Turn
from fcit.worker.experiment import Experiment

SAMPLES_READ, IMAGES_READ = 64, 1000
"""Training samples of each dataset that give the lengths, and those whose images' sizes are read, spread
evenly over its file."""


class SampleCounts:
    """How many samples there are and who holds them; None where the data is not here."""

    def __init__(self, experiment: Experiment, notes: list[str]):
        self.experiment, config = experiment, experiment.config
        self.missing: set[str] = set()
        names = experiment.setting.datasets
        self.made = bool(config.data.root) or experiment.root.is_dir()
        if not self.made:
            for name in names:
                experiment.folder.assume(name, *config.data.counts)
        elif config.data.root:
            root, problem = Path(config.data.root), "no such folder"
            if root.is_dir():
                rows = list(map(experiment.dataset, names))
                self.missing = set(missing.missing(root, rows, experiment.folder.images))
                problem = f"lacks {', '.join(n for n in names if n in self.missing)}"
            else:
                self.missing = set(names)
            if self.missing:
                notes.append(f"data.root: {root}: {problem}; their samples are not counted")

    def of_client(self, turn: Turn) -> int | None:
        """The training samples of a client's turn."""
        experiment, names = self.experiment, turn.task.datasets
        if experiment.method.replays:
            names = experiment.training_setting.seen(turn.stage)
        if self.missing.intersection(names):
            return None
        return len(experiment.shares(turn.task)[turn.client]) + len(experiment.rehearsed(turn))

    @property
    def general(self) -> int:
        """General questions that are asked."""
        return sum(
            len(self.experiment.samples(name, "test")) for name in self.experiment.folder.general
        )

    def questions(self, names: Sequence[str], general: bool = False) -> int | None:
        """Test questions of these datasets; `general`: with the general ones, where they are asked."""
        if self.missing.intersection(names):
            return None
        more = self.general if general else 0
        return more + sum(len(self.experiment.samples(name, "test")) for name in names)

    def heaviest(self) -> tuple[Data, list[Path]]:
        """Of every dataset that is here the training sample with the longest text; and many images. Both
        empty where the mini suite is not made: its images have one size."""
        if not self.made:
            return Data([], []), []
        names = [name for name in self.experiment.setting.datasets if name not in self.missing]
        taught = [rows for name in names if (rows := self.experiment.samples(name, "train"))]
        seen = self.experiment.data_of([s for rows in taught for s in _spread(rows, IMAGES_READ)])
        longest = self.experiment.data_of([max(rows, key=_characters) for rows in taught])
        return longest, list(dict.fromkeys(seen.images))

    @contextmanager
    def some_data(self) -> Iterator[Data]:
        """A few training samples of every dataset that is here; their images exist within `with`."""
        names = [name for name in self.experiment.setting.datasets if name not in self.missing]
        if self.made:
            rows = [_spread(self.experiment.samples(name, "train"), SAMPLES_READ) for name in names]
            yield self.experiment.data_of([sample for row in rows for sample in row])
            return
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "mini"
            suite.write(root, self.experiment.config.seed, 16, 1, names)
            samples = [row for name in names for row in datasets.read(root, name, "train")]
            yield Data(samples, [datasets.image_path(root, sample) for sample in samples])


def _spread(rows: Sequence[Sample], count: int) -> list[Sample]:
    """At most so many of the rows, from the first on, at equal distances."""
    count = min(count, len(rows))
    return [rows[at * len(rows) // count] for at in range(count)]


def _characters(sample: Sample) -> int:
    turns = [(sample.prompt, sample.answers[0]), *sample.more]
    return sum(len(prompt) + len(answer) for prompt, answer in turns)
