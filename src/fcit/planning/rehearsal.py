"""A run without training: the server's own loop over blank tensors, to weigh what travels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fcit.aggregation.packing import Wire, packed_bytes
from fcit.aggregation.privacy import Privacy
from fcit.optimizers.base import carry_memory, groups
from fcit.rounds.federation import Federation
from fcit.rounds.server import hand_out, take_round
from fcit.types import SHARED_PROJECTOR, Identity, Job, State, Turn, Update, Weights
from fcit.weights import nbytes
from fcit.worker.experiment import Experiment

if TYPE_CHECKING:
    from torch import Tensor

    from fcit.models.size import ModelSize


@dataclass(frozen=True)
class Traffic:
    """One stage's bytes on the wire: to and from each client of every round, [round][slot]. For what
    training it takes, the stage's last message, and what that would be in any other round."""

    down: list[list[int]]
    up: list[list[int]]
    last: Job
    usual: Job


def rehearse(experiment: Experiment, size: ModelSize, width: int) -> list[Traffic]:
    """What every client of every round is sent and sends, by stage.

    Methods, federated optimizer and server are the real ones; clients return what they got. Every
    task's identity token, [width], is unlike all others, so each opens a subspace of its own, as far as
    `method.max_subspaces` allows.
    """
    wire = experiment.config.federation.wire
    rules = Federation(outlier_factor=0)  # whatever the recipe's are: they change no size
    run = replace(experiment.federated_run, federation=rules, privacy=Privacy())
    method, optimizer, setting = run.method, run.optimizer, run.setting
    engine = _Blank(experiment, size, width)
    blank, projector = size.blank(method.rank), size.blank_projector()
    state = method.start(blank, projector, experiment.config.seed)
    found: list[Traffic] = []
    for stage, rounds in zip(setting.stages, run.plan, strict=True):
        state = carry_memory(state, method.begin(state, stage))
        state = replace(state, optimizer=optimizer.begin(state.optimizer))
        down: list[list[int]] = []
        up: list[list[int]] = []
        jobs: Sequence[Job] = []
        for number, turns in enumerate(rounds):
            if number in (0, len(rounds) - 1):  # between them nothing changes its shape
                state, report = take_round(run, state, turns, engine)
                jobs, updates, identities = report.jobs, report.updates, report.identities
            else:
                identities = list(engine.identify(method.to_identify(state, turns)))
                state, jobs = hand_out(run, state, turns, identities)
                updates = list(engine.run(jobs))
            told = {one.client: nbytes({"token": one.token}) for one in identities}
            down.append([weight(job.received, wire) for job in jobs])
            up.append([weight(one, wire) + told.get(one.client, 0) for one in updates])
        turn = replace(jobs[0].turn, last=False)
        _, (usual,) = hand_out(run, state, [turn], [])
        state = replace(method.end(state, stage), optimizer=state.optimizer)
        found.append(Traffic(down, up, jobs[0], usual))
    return found


def weight(sent: State | Update, wire: Wire = "float32") -> int:
    """The bytes of a message's tensors on the wire."""
    kinds = (sent.adapters, sent.extras, sent.optimizer)
    return sum(packed_bytes(weights, wire) for parts in kinds for weights in parts.values())


class _Blank:
    """An engine whose clients return what they were sent."""

    def __init__(self, experiment: Experiment, size: ModelSize, width: int):
        self.experiment, self.size, self.width = experiment, size, width
        self.tasks: dict[str, int] = {}

    def identify(self, turns: Sequence[Turn]) -> Iterator[Identity]:
        from torch import cat, zeros

        for turn in turns:
            token = zeros(max(self.width, 64))
            number = self.tasks.setdefault(turn.task.name, len(self.tasks))
            token[number % min(len(token), self.experiment.method.subspace_limit or len(token))] = 1
            if self.experiment.method.identity == "both":
                token = cat([token, token])
            yield Identity(turn.client, turn.task.name, token, 1)

    def run(self, jobs: Sequence[Job]) -> Iterator[Update]:
        method, size = self.experiment.method, self.size
        for job in jobs:
            received, trained = job.received, method.trains(job.received)
            model = _Model(received, size)
            method.equip(model, received)
            extras, _ = method.report(model, received, {}, [_Batch()])
            projector = received.projector or {}
            if projector:
                extras = extras | {SHARED_PROJECTOR: projector}
            own = [value for name in trained for value in received.adapters[name].values()]
            more = [value for part in model.extra.values() for value in part.values()]
            names = groups(trained, bool(projector))
            named = dict(zip(names, ([*own, *more], [*projector.values()]), strict=True))
            named = {name: values for name, values in named.items() if values}
            local = self.experiment.optimizer.local(job.turn, named, received.optimizer, {})
            adapters = {name: received.adapters[name] for name in trained}
            yield Update(job.turn.client, 1, adapters, extras, {"loss": 0.0}, local.report()[0])


class _Batch:
    """One sample of nothing."""

    def each(self) -> Iterator[_Batch]:
        yield self


class _Model:
    """What methods may touch of a model, with nothing behind it."""

    device = "cpu"

    def __init__(self, received: State, size: ModelSize):
        self.received, self.size = received, size
        self.layers = list(size.layers)
        self.gate: Any = None
        self.prompts: Any = None
        self.extra: dict[str, Any] = {}

    def logits(self, batch: Any) -> tuple[Tensor, Tensor]:
        from torch import int64, zeros

        return zeros(1, 2, requires_grad=True), zeros(1, dtype=int64)

    def loss(self, batch: Any) -> Tensor:
        return self.logits(batch)[0].sum()

    def live(self, name: str) -> Weights:
        return self.received.adapters[name]

    def gradient(self, name: str, loss: Tensor) -> Weights:
        return self.received.adapters[name]

    def base_embeds(self, batch: Any) -> Tensor:
        from torch import zeros

        return zeros(1, max(1, self.size.image_tokens), self.size.hidden)

    def instead(self, gate: Any, projector: Weights | None = None) -> AbstractContextManager[None]:
        return nullcontext()
