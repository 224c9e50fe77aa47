"""From a configuration to the objects of a run: data, plan, method, model, and one process's work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path

from fcit import schedule
from fcit.benchmark import datasets, scorers, settings
from fcit.benchmark.captions import java
from fcit.benchmark.datasets import Split
from fcit.benchmark.published import published
from fcit.cache import cache_folder, made_by
from fcit.client import Data, Training, identify, take_turn
from fcit.config import Config, build_method
from fcit.evaluate import Answer, answer, chunks
from fcit.models import CHECKPOINTS
from fcit.optimisers import Optimiser
from fcit.packing import pack_update, unpack_state
from fcit.partition import split
from fcit.pretrain.general import GENERAL
from fcit.pretrain.general import write as write_general
from fcit.privacy import hide_token
from fcit.seeds import torch_stream
from fcit.types import (
    FcitError,
    Identity,
    Job,
    Sample,
    Score,
    Setting,
    State,
    Task,
    Turn,
    Update,
    Weights,
)
from fcit.watch import Watch


class Experiment:
    """What a configuration stands for, built on first use; no model is loaded here."""

    def __init__(self, config: Config):
        self.config = config
        self.method = build_method(config)
        federation, part = config.federation, config.setting
        self.optimiser = Optimiser() if self.method.centralised else federation.build_optimiser()
        self.setting: Setting = settings.setting(
            part.name,
            clients=federation.clients,
            per_round=federation.per_round,
            rounds=federation.rounds,
            order=part.order or None,
        )
        self.privacy = config.privacy.build()
        epochs = config.training.epochs
        self.setting = Setting(**{**_fields(self.setting), "epochs": epochs})
        self.training_setting = self.method.reshape(self.setting)
        self.plan = schedule.plan(self.training_setting, config.seed, part.sampling)
        self._samples: dict[tuple[str, Split], list[Sample]] = {}
        self._shares: dict[tuple[Task, int], list[list[Sample]]] = {}

    @cached_property
    def root(self) -> Path:
        """The data folder: the recipe's, or the mini suite of its seed and sizes in the cache."""
        if self.config.data.root:
            root = Path(self.config.data.root)
            if not root.is_dir():
                raise FcitError(f"data.root: {root}: no such folder")
            return root
        train, test = self.config.data.counts
        return cache_folder() / f"mini-{made_by('mini')}-seed{self.config.seed}-{train}x{test}"

    @property
    def general(self) -> Path | None:
        """The data folder of the mini model's general questions, in the cache; None: not asked."""
        count = self.config.evaluation.general
        if not count or self.config.model.path:
            return None
        return cache_folder() / f"general-{made_by('generic')}-{count}"

    @cached_property
    def images(self) -> tuple[Path, ...]:
        """The recipe's folders of images; none: `datasets/` of the root."""
        found = tuple(map(Path, self.config.data.images))
        if lacking := [str(path) for path in found if not path.is_dir()]:
            raise FcitError(f"data.images: no such folder: {', '.join(lacking)}")
        return found

    def prepare(self, watch: Watch) -> None:
        """Make the mini suite where it is needed; report what is missing (data, or Java where captions
        are scored as the reference does) before anything starts."""
        if not self.config.data.root and not self.root.is_dir():
            from fcit.benchmark import mini

            train, test = self.config.data.counts
            watch.say(f"making the mini suite in {self.root}")
            with watch.bar("mini suite", 12 * (train + test)) as step:
                seed = self.config.seed
                try:
                    mini.write(self.root, seed, train, test, progress=lambda done, _: step(done))
                except FcitError:
                    if not self.root.is_dir():  # else another run has just made it
                        raise
        if self.general and not self.general.is_dir():
            count = self.config.evaluation.general
            with watch.bar("general questions", count) as step:
                write_general(self.general, count, progress=step)
        try:
            datasets.require(self.root, self.setting.datasets, self.images)
        except FcitError as error:
            raise FcitError(f"data.root: {error}") from None
        scorers = {datasets.find(name).scorer for name in self.setting.datasets}
        if "caption" in scorers and self.config.evaluation.scoring == "reference":
            java()

    def samples(self, dataset: str, part: Split) -> list[Sample]:
        """A dataset's training or test samples (as many as the recipe says)."""
        key = (dataset, part)
        if dataset == GENERAL and self.general and key not in self._samples:
            self._samples[key] = datasets.read(self.general, dataset, part)
        if key not in self._samples:
            data, limit = self.config.data, self.config.evaluation.limit
            count = (
                data.train if part == "train" else min(filter(None, (data.test, limit)), default=0)
            )
            found = datasets.read(self.root, dataset, part, self.images)
            self._samples[key] = found[:count] if count else found
        return self._samples[key]

    def test(self, dataset: str, indices: Sequence[int]) -> Data:
        """Some test samples of a dataset."""
        samples = self.samples(dataset, "test")
        chosen = [samples[i] for i in indices]
        if dataset == GENERAL and self.general:
            return Data(chosen, [datasets.image_path(self.general, one) for one in chosen])
        return self.data_of(chosen)

    def test_share(self, dataset: str, client: int) -> list[Sample]:
        """A client's own test samples: as unequal a share as its training samples are."""
        samples = self.samples(dataset, "test")
        clients, beta = self.setting.clients, self.config.setting.beta
        name = f"{dataset}/test"
        share = split(len(samples), clients, beta, self.config.seed, name, minimum=0)[client]
        return [samples[i] for i in share]

    def shares(self, task: Task) -> list[list[Sample]]:
        """Every client's training samples of a task: the published split where the data folder has
        it, else a seeded one of each of the task's datasets."""
        return self._shares_of(task, self.training_setting.clients)

    def _shares_of(self, task: Task, clients: int) -> list[list[Sample]]:
        if (task, clients) not in self._shares:
            found = published(self.root, task, self.config.setting.beta, clients, self.images)
            self._shares[task, clients] = found or self._split(task, clients)
        return self._shares[task, clients]

    def _split(self, task: Task, clients: int) -> list[list[Sample]]:
        shares: list[list[Sample]] = [[] for _ in range(clients)]
        beta, minimum = self.config.setting.beta, self.config.federation.minimum
        for name in task.datasets:
            samples = self.samples(name, "train")
            parts = split(len(samples), clients, beta, self.config.seed, name, minimum=minimum)
            for share, part in zip(shares, parts, strict=True):
                share += [samples[i] for i in part]
        return shares

    def counts(self, setting: Setting) -> dict[str, list[int]]:
        """How many training samples of each dataset every client of a setting holds."""
        tasks = [task for stage in setting.stages for task in stage.tasks]
        found = {
            name: self._shares_of(task, setting.clients) for task in tasks for name in task.datasets
        }
        return {
            name: [sum(sample.dataset == name for sample in share) for share in shares]
            for name, shares in found.items()
        }

    def data(self, turn: Turn) -> Data:
        """A client's own training samples of its turn's task."""
        return self.data_of(self.shares(turn.task)[turn.client])

    def data_of(self, samples: Sequence[Sample]) -> Data:
        """Samples with the paths of their images."""
        paths = [datasets.image_path(self.root, sample, self.images) for sample in samples]
        return Data(samples, paths)

    def model_path(self) -> str:
        """The LMM's folder or hub id."""
        return self.config.model.path or str(CHECKPOINTS / "mini-lmm")

    def identity_path(self) -> str:
        """The identity encoder's folder or hub id."""
        return self.config.model.identity or str(CHECKPOINTS / "mini-clip")


class Site:
    """One process with the base model loaded once, doing what the server or a client needs done."""

    def __init__(self, config: Config):
        import torch

        torch.set_num_threads(config.training.threads)
        self.experiment = Experiment(config)
        self.config, self.method = config, self.experiment.method
        self.training = Training(**config.training.model_dump())
        self.placed: State = State()

    @cached_property
    def model(self):
        """The base model."""
        from fcit.models.device import choose
        from fcit.models.lmm import LMM

        part = self.config.model
        device, dtype = choose(part.device, part.dtype)
        cache = cache_folder() / "features" if part.features else None
        path = self.experiment.model_path()
        return LMM(path, device, dtype, cache, self.config.training.max_length)

    @cached_property
    def encoder(self):
        """The frozen identity encoder."""
        from fcit.models.device import choose
        from fcit.models.identity import Encoder

        device, _ = choose(self.config.model.device, "float32")
        return Encoder(self.experiment.identity_path(), device)

    def start(self) -> State:
        """The method's state before the first round."""
        noise = torch_stream(self.config.seed, "init")
        blank = self.model.subspaces.blank(self.method.rank, self.method.init_std, noise)
        return self.method.start(blank, self.model.base_projector, self.config.seed)

    def identify(self, turn: Turn) -> Identity:
        """One client's identity token."""
        identity = identify(self.method, self.encoder, turn, self.experiment.data(turn))
        privacy = self.experiment.privacy
        if not privacy.on:
            return identity
        noise = privacy.stream(self.config.seed, "token", turn.client, turn.task.name)
        return hide_token(identity, privacy, noise)

    def train(self, job: Job, memory: Weights) -> tuple[Update, Weights]:
        """One client's turn; what comes and goes has the form of the wire."""
        turn, wire, seed = job.turn, self.config.federation.wire, self.config.seed
        job = replace(job, received=unpack_state(job.received, wire))
        update, memory = take_turn(
            job,
            self.method,
            self.model,
            self.experiment.data(turn),
            self.training,
            seed,
            memory,
            self.experiment.optimiser,
        )
        noise = torch_stream(seed, "wire", "up", turn.stage, turn.round, turn.client)
        return pack_update(update, job.received, wire, noise), memory

    def place(self, state: State) -> None:
        """Put a state in place, to answer with."""
        self.placed = state
        self.model.receive(state, self.method.scale)
        self.method.equip(self.model, state)

    def answer(self, data: Data) -> list[Answer]:
        """Answers of the state in place."""
        encoder = self.encoder if self.method.identity else None
        tokens = self.config.evaluation.max_new_tokens
        return answer(self.model, encoder, self.method, self.placed, data, tokens)

    def score(self, client: int, dataset: str) -> Score:
        """How the state in place does on a client's own test samples."""
        samples, part = self.experiment.test_share(dataset, client), self.config.evaluation
        texts: dict[int, str] = {}
        for batch in chunks(samples, part.batch_size):
            data = self.experiment.data_of([samples[i] for i in batch])
            texts |= {i: one.text for i, one in zip(batch, self.answer(data), strict=True)}
        if not samples:
            return Score(client, dataset, 0.0, 0)
        said = [texts[i] for i in range(len(samples))]
        found = scorers.score(dataset, said, samples, part.scoring)
        return Score(client, dataset, sum(found.each), len(samples))


def _fields(value) -> dict:
    return {one.name: getattr(value, one.name) for one in fields(value)}
