"""Counts the samples of a run: read from the data, or computed where the mini suite is not made yet."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fcit import suite
from fcit.benchmark import datasets
from fcit.benchmark.partition import split
from fcit.rounds.client import Data
from fcit.types import Task
from fcit.worker.experiment import Experiment

SAMPLES_READ = 64
"""Training samples of each dataset that give the lengths."""


class SampleCounts:
    """How many samples there are and who holds them; None where the data is not here."""

    def __init__(self, experiment: Experiment, notes: list[str]):
        self.experiment, self.config = experiment, experiment.config
        self.own_data = bool(self.config.data.root)
        self.missing: set[str] = set()
        self.by_task: dict[Task, list[int]] = {}
        if self.own_data:
            root, names = Path(self.config.data.root), experiment.setting.datasets
            if root.is_dir():
                rows = list(map(experiment.dataset, names))
                self.missing = set(datasets.missing(root, rows, experiment.images))
                problem = f"lacks {', '.join(n for n in names if n in self.missing)}"
            else:
                self.missing, problem = set(names), "no such folder"
            if self.missing:
                notes.append(f"data.root: {root}: {problem}; their samples are not counted")

    def of_client(self, task: Task, client: int) -> int | None:
        """A client's training samples of a task."""
        if any(name in self.missing for name in task.datasets):
            return None
        if task not in self.by_task:
            self.by_task[task] = self._of_clients(task)
        return self.by_task[task][client]

    def _of_clients(self, task: Task) -> list[int]:
        if self.own_data:
            return [len(share) for share in self.experiment.shares(task)]
        config, setting = self.config, self.experiment.training_setting
        sizes, count = [0] * setting.clients, config.data.counts[0]
        least = config.federation.min_samples
        for name in task.datasets:
            holders = setting.holders(name)
            beta, seed = config.setting.beta, config.seed
            parts = split(count, len(holders), beta, seed, name, minimum=least)
            for client, part in zip(holders, parts, strict=True):
                sizes[client] += len(part)
        return sizes

    def questions(self, names: Sequence[str], general: bool = False) -> int | None:
        """Test questions of these datasets; `general`: with the general ones, where they are asked."""
        if any(name in self.missing for name in names):
            return None
        evaluation = self.config.evaluation
        more = evaluation.general_questions if general and self.experiment.general else 0
        if self.own_data:
            return more + sum(len(self.experiment.samples(name, "test")) for name in names)
        limit, count = evaluation.limit, self.config.data.counts[1]
        return more + len(names) * (min(limit, count) if limit else count)

    @contextmanager
    def some_data(self) -> Iterator[Data]:
        """A few training samples of every dataset that is here; their images exist within `with`."""
        names = [name for name in self.experiment.setting.datasets if name not in self.missing]
        if self.own_data or self.experiment.root.is_dir():
            rows = [self.experiment.samples(name, "train")[:SAMPLES_READ] for name in names]
            yield self.experiment.data_of([sample for row in rows for sample in row])
            return
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "mini"
            suite.write(root, self.config.seed, 16, 1, names)
            samples = [row for name in names for row in datasets.read(root, name, "train")]
            yield Data(samples, [datasets.image_path(root, sample) for sample in samples])
