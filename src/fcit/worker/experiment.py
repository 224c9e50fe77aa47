"""From a configuration to the objects of a run: data, plan, method."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fcit.benchmark import missing, schedule, settings
from fcit.benchmark.layout import PARTITIONS
from fcit.benchmark.partition import split
from fcit.benchmark.published import published
from fcit.benchmark.reading import most_stops, read_answer, read_truth
from fcit.benchmark.records import spoken
from fcit.benchmark.rules.base import Accuracy
from fcit.models import CHECKPOINTS
from fcit.optimizers import Optimizer
from fcit.recipe.config import Config
from fcit.recipe.sections import DataSection
from fcit.rounds.client import Data
from fcit.rounds.server import FederatedRun
from fcit.types import FcitError, Sample, Setting, Task, Turn
from fcit.watch import Watch
from fcit.worker.samples import Samples


class Experiment:
    """The data, plan and method of a configuration, built on first use. No model is loaded here.

    own: a client's own data; it trains on all of it, instead of on its share of the recipe's.
    """

    def __init__(self, config: Config, own: DataSection | None = None):
        elsewhere: set[str] = set()
        if own:
            if config.evaluation.where == "clients":
                elsewhere = config.data.rules.keys() - own.rules.keys()
            # The server alone asks general questions.
            asked = replace(config.evaluation, general="", general_questions=0)
            data = replace(own, missing=config.data.missing)
            config = replace(config, data=data, evaluation=asked)
        self.config, self.own = config, own is not None
        self.method = config.method
        federation, section = config.federation, config.setting
        self.optimizer = federation.build_optimizer() if self.method.federated else Optimizer()
        sizes = (federation.clients, federation.per_round, federation.rounds)
        if section.stages:
            setting = settings.own(section.name, section.tasks, section.stages, *sizes)
        else:
            setting = settings.setting(section.name, *sizes, section.order)
        self.setting: Setting = replace(setting, epochs=config.training.epochs)
        self.training_setting = self.method.reshape(self.setting)
        self.plan = schedule.plan(self.training_setting, config.seed, section.sampling)
        self.published: set[str] = set()
        """Tasks with a published split, of those looked at so far."""
        self.folder = Samples(config, elsewhere)
        self.dataset, self.samples = self.folder.dataset, self.folder.samples
        self._shares: dict[tuple[Task, Setting], list[list[Sample]]] = {}

    @property
    def root(self) -> Path:
        """The data folder."""
        return self.folder.root

    def federated_run(self, token_width: int, dealt: bool = False) -> FederatedRun:
        """What the federated loop works with (`dealt`: see there)."""
        config = self.config
        return FederatedRun(
            self.training_setting,
            self.plan,
            self.method,
            self.optimizer,
            config.federation,
            config.privacy,
            config.seed,
            token_width=token_width,
            dealt=dealt,
        )

    def prepare(self, watch: Watch) -> None:
        """Make the mini suite if it is needed. Raise FcitError where data is missing, or Java for the
        reference scores of captions."""
        self.folder.prepare(self.setting.datasets, watch)

    def left_out(self, train: bool) -> str:
        """How many test (and with `train`, training) records `data.missing = "drop"` leaves out of each
        dataset, in words; empty where it leaves out none."""
        if self.config.data.missing == "error":
            return ""
        for stage in self.training_setting.stages if train else ():
            for task in stage.tasks:
                self.shares(task)
        if self.config.evaluation.where == "server":
            for name in (*self.setting.datasets, *self.folder.general):
                self.samples(name, "test")
        return missing.told(self.folder.dropped)

    def check_images(self, train: bool) -> None:
        """Raise FcitError naming the first test (and with `train`, training) sample without its image."""
        names = *self.setting.datasets, *self.folder.general
        parts = [self.samples(name, "test") for name in names]
        for stage in self.training_setting.stages if train else ():
            parts += [share for task in stage.tasks for share in self.shares(task)]
        for part in parts:
            missing.require_images(part, self.data_of(part).images)

    def check_ids(self) -> None:
        """Raise FcitError if test samples of a dataset share an id; strict scoring needs unique ones."""
        if self.config.evaluation.scoring == "strict":
            for name in self.setting.datasets:
                self.dataset(name).check_ids(self.samples(name, "test"))

    def test(self, dataset: str, indices: Sequence[int]) -> Data:
        """Some test samples of a dataset."""
        samples = self.samples(dataset, "test")
        return self.data_of([samples[i] for i in indices])

    def score(self, dataset: str, answers: Sequence[str], samples: Sequence[Sample]) -> Accuracy:
        """Score one answer for each test sample of a dataset, as `[evaluation]` says."""
        section = self.config.evaluation
        said = [
            read_answer(answer, section.reading, most_stops(sample.answers))
            for answer, sample in zip(answers, samples, strict=True)
        ]
        return self.dataset(dataset).score(said, self._as_read(samples), section.scoring)

    def chance(self, dataset: str) -> float:
        """Percent of the best constant answer to a dataset's test samples, as if a model had said it.

        With `evaluation.reading = "short"` each sample's truths say how answers are cut; the training
        answers that are best with each of these cuts are tried.
        """
        train, test = self.samples(dataset, "train"), self.samples(dataset, "test")
        section, scored = self.config.evaluation, self.dataset(dataset)
        if section.reading == "whole":
            return scored.chance(train, test, section.scoring)
        chances: list[float] = []
        for stops in sorted({most_stops(sample.answers) for sample in test} or {0}):
            said: dict[str, str] = {}
            counts = Counter[str]()
            for answer in spoken(train):
                short = read_answer(answer, section.reading, stops)
                said.setdefault(short, answer)
                counts[short] += 1
            best = said[scored.best_constant(counts, self._as_read(test), section.scoring)]
            chances.append(self.score(dataset, [best] * len(test), test).percent)
        return max(chances)

    def _as_read(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        """Truths lose what answers lose at their beginning: "The Hague"."""
        if self.config.evaluation.reading != "short":
            return samples
        return [
            replace(sample, answers=tuple(map(read_truth, sample.answers))) for sample in samples
        ]

    def test_share(self, dataset: str, client: int) -> list[Sample]:
        """A client's own test samples: as unequal a share as its training samples are."""
        if self.own:
            present = self.dataset(dataset).file(self.root, "test").is_file()
            return self.samples(dataset, "test") if present else []
        clients, beta = self.setting.clients, self.config.setting.beta
        pool = self._pool(dataset, self.setting)
        samples = [sample for name in pool for sample in self.samples(name, "test")]
        name = f"{', '.join(pool)}/test"
        share = split(len(samples), clients, beta, self.config.seed, name, minimum=0)[client]
        return [samples[i] for i in share if samples[i].dataset == dataset]

    def shares(self, task: Task, setting: Setting | None = None) -> list[list[Sample]]:
        """Every client's training samples of a task: the published split if the data folder has it,
        otherwise each pool of its datasets is split, from the seed, among the clients that may ever learn
        it. A pool is the datasets that belong to the same tasks (Guo et al. 2025 pool a capability's), or
        one dataset (`setting.split`). So every client has samples of every task that it may learn, at
        least `federation.min_samples`, but it may lack one of the task's datasets.

        setting: whose clients share the samples (default: the one that is trained).

        A reference point's task that the setting does not have is made of what every client holds of the
        setting's tasks, unless one client holds all data. A part of a pool is split anew: a client may
        have nothing of it.

        Raises FcitError if `data.train` would cut a published split, if the split is malformed, for
        another number of clients, or leaves a client no sample, and if there are too few samples.
        """
        setting = setting or self.training_setting
        clients = setting.clients
        key = (task, setting)
        if key not in self._shares:
            federated = clients == self.setting.clients
            tasks = [own for stage in self.setting.stages for own in stage.tasks]
            pools = {each for name in task.datasets for each in self.setting.together(name)}
            if task not in tasks and federated and pools == set(task.datasets):
                self._shares[key] = self._gathered(task, tasks)
                return self._shares[key]
            beta = self.config.setting.beta
            shares = published(self.root, task, beta, clients) if federated else None
            if shares and self.config.data.missing == "drop":
                shares = self._sound(shares)
                missing.require_samples(task.name, shares)
            if shares and self.config.data.train:
                raise FcitError(
                    f"data.train: {self.config.data.train}, but {self.root} has the published split of "
                    f"{task.name}, which is used whole; set it to 0, or move {PARTITIONS} away"
                )
            if shares:
                self.published.add(task.name)
            self._shares[key] = shares or self._split(task, setting)
        return self._shares[key]

    def _sound(self, shares: Sequence[list[Sample]]) -> list[list[Sample]]:
        """A published split without the samples whose image cannot be read."""
        kept = self.folder.sound([sample for share in shares for sample in share], "train")
        images = {(sample.dataset, sample.image) for sample in kept}
        return [[s for s in share if (s.dataset, s.image) in images] for share in shares]

    def _gathered(self, task: Task, tasks: Sequence[Task]) -> list[list[Sample]]:
        """What every client holds of a task's datasets in `tasks`; of each, for the first that has it."""
        gathered: list[list[Sample]] = [[] for _ in range(self.setting.clients)]
        for name in task.datasets:
            first = next(own for own in tasks if name in own.datasets)
            for mine, share in zip(gathered, self.shares(first, self.setting), strict=True):
                mine += [sample for sample in share if sample.dataset == name]
        return gathered

    def _split(self, task: Task, setting: Setting) -> list[list[Sample]]:
        shares: list[list[Sample]] = [[] for _ in range(setting.clients)]
        beta, minimum = self.config.setting.beta, self.config.federation.min_samples
        for pool in dict.fromkeys(self._pool(name, setting) for name in task.datasets):
            samples = [sample for name in pool for sample in self.samples(name, "train")]
            holders, name = setting.holders(pool[0]), ", ".join(pool)
            parts = split(len(samples), len(holders), beta, self.config.seed, name, minimum=minimum)
            for client, part in zip(holders, parts, strict=True):
                shares[client] += [samples[i] for i in part]
        return shares

    def _pool(self, dataset: str, setting: Setting) -> tuple[str, ...]:
        """The datasets that are split by one draw with `dataset`."""
        return setting.together(dataset) if self.config.setting.split == "pooled" else (dataset,)

    def counts(self, setting: Setting) -> dict[str, list[int]]:
        """How many training samples of each dataset every client of a setting holds."""
        tasks = [task for stage in setting.stages for task in stage.tasks]
        by_dataset = {name: self.shares(task, setting) for task in tasks for name in task.datasets}
        return {
            name: [sum(sample.dataset == name for sample in share) for share in shares]
            for name, shares in by_dataset.items()
        }

    def digests(self, setting: Setting) -> dict[str, str]:
        """A digest of every task's training samples and of who holds them, but not of the images."""
        found: dict[str, str] = {}
        for task in (task for stage in setting.stages for task in stage.tasks):
            digest = hashlib.sha256()
            for share in () if task.name in found else self.shares(task, setting):
                for sample in share:
                    row = (sample.id, sample.dataset, sample.image, sample.prompt, sample.answers)
                    digest.update(json.dumps((*row, sample.more)).encode())
                digest.update(b"next client")
            found.setdefault(task.name, digest.hexdigest())
        return found

    def data(self, turn: Turn, replay: bool = True) -> Data:
        """A client's own training samples of its turn's task and, with `replay`, of earlier stages'."""
        samples = self._held(turn.client, turn.task)
        if self.own and not samples:
            raise FcitError(f"{self.root}: has no training samples of {turn.task.name}")
        return self.data_of(samples + self.rehearsed(turn) if samples and replay else samples)

    def rehearsed(self, turn: Turn) -> list[Sample]:
        """What a method that replays takes from a client's samples of the tasks of its earlier stages."""
        if not self.method.replays:
            return []
        tasks = schedule.tasks_met(self.plan, turn)
        old = [sample for task in tasks for sample in self._held(turn.client, task)]
        return self.method.rehearsed(turn, old, self.config.seed)

    def _held(self, client: int, task: Task) -> list[Sample]:
        """A client's own training samples of a task."""
        if not self.own:
            return self.shares(task)[client]
        files = {name: self.dataset(name).file(self.root, "train") for name in task.datasets}
        present = [name for name, file in files.items() if file.is_file()]
        return [sample for name in present for sample in self.samples(name, "train")]

    def data_of(self, samples: Sequence[Sample]) -> Data:
        """Samples with the paths of their images."""
        return Data(samples, [self.folder.image(sample) for sample in samples])

    def model_path(self) -> str:
        """The LMM's folder or hub id."""
        return self.config.model.path or str(CHECKPOINTS / "mini-lmm")

    def identity_path(self) -> str:
        """The identity encoder's folder or hub id."""
        return self.config.model.identity or str(CHECKPOINTS / "mini-clip")
