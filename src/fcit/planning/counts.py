"""How many samples a run will meet, read where they are and reckoned where that is enough."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from fcit.benchmark import datasets
from fcit.benchmark.partition import split
from fcit.models.images import image_size
from fcit.types import Sample, Task
from fcit.worker.experiment import Experiment

Picture = tuple[int, int]
"""Width and height of an image."""

LOOKED_AT = 64
"""Training samples of each dataset whose lengths are looked at."""


class Counts:
    """How many samples there are and who holds them; None where the data is not here."""

    def __init__(self, experiment: Experiment, notes: list[str]):
        self.experiment, self.config = experiment, experiment.config
        self.own = bool(self.config.data.root)
        self.absent: dict[str, list[str]] = {}
        self.sizes: dict[Task, list[int]] = {}
        if self.own:
            root, names = Path(self.config.data.root), experiment.setting.datasets
            there = root.is_dir()
            self.absent = (
                datasets.missing(root, list(map(experiment.dataset, names)), experiment.images)
                if there
                else {name: [] for name in names}
            )
            if self.absent:
                which = f"lacks {', '.join(self.absent)}" if there else "no such folder"
                notes.append(f"data.root: {root}: {which}; their samples are not counted")

    def held(self, task: Task) -> list[int] | None:
        """Every client's training samples of a task."""
        if any(name in self.absent for name in task.datasets):
            return None
        if task not in self.sizes:
            experiment, setting = self.experiment, self.experiment.training_setting
            if self.own:
                self.sizes[task] = [len(share) for share in experiment.shares(task)]
                return self.sizes[task]
            sizes, federation = [0] * setting.clients, self.config.federation
            for name in task.datasets:
                holders = setting.holders(name)
                parts = split(
                    self.config.data.counts[0],
                    len(holders),
                    self.config.setting.beta,
                    self.config.seed,
                    name,
                    minimum=federation.min_samples,
                )
                for client, part in zip(holders, parts, strict=True):
                    sizes[client] += len(part)
            self.sizes[task] = sizes
        return self.sizes[task]

    def tests(self, names: Sequence[str], general: bool = False) -> int | None:
        """The questions of these datasets, and the general ones where they are asked."""
        if any(name in self.absent for name in names):
            return None
        more = (
            self.config.evaluation.general_questions if general and self.experiment.general else 0
        )
        if self.own:
            return more + sum(len(self.experiment.samples(name, "test")) for name in names)
        limit, count = self.config.evaluation.limit, self.config.data.counts[1]
        return more + len(names) * (min(limit, count) if limit else count)

    def some(self) -> tuple[list[Sample], list[Picture]]:
        """A few training samples of every dataset that is here, and the sizes of their images."""
        names = [name for name in self.experiment.setting.datasets if name not in self.absent]
        if self.own or self.experiment.root.is_dir():
            found = [
                one for name in names for one in self.experiment.samples(name, "train")[:LOOKED_AT]
            ]
            return found, list(map(image_size, self.experiment.data_of(found).images))
        from fcit import suite as mini

        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "mini"
            mini.write(root, self.config.seed, 8, 1, names)
            found = [one for name in names for one in datasets.read(root, name, "train")]
            return found, [image_size(datasets.image_path(root, one)) for one in found]
