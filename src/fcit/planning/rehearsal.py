"""Rehearses a run without training: the server's own loop over blank tensors gives the bytes sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fcit.aggregation.packing import Wire, packed_bytes
from fcit.aggregation.privacy import Privacy
from fcit.optimizers.base import groups
from fcit.rounds.federation import Federation
from fcit.rounds.server import begun, ended, hand_out, take_round
from fcit.types import SHARED_PROJECTOR, Identity, Job, State, Turn, Update
from fcit.weights import kinds, nbytes
from fcit.worker.experiment import Experiment

if TYPE_CHECKING:
    from fcit.models.size import ModelSize


@dataclass(frozen=True)
class StageTraffic:
    """One stage's bytes on the wire, and the jobs from which memory and time are estimated."""

    down: list[list[int]]
    up: list[list[int]]
    """To and from each client of every round: [round][client]."""
    last: Job
    """Of the stage's last round."""
    usual: Job
    """What `last` would be in any other round."""


def rehearse(
    experiment: Experiment, size: ModelSize, width: int, most: int = 2
) -> list[StageTraffic]:
    """What every client of every round receives and sends, by stage; of a stage with more than `most`
    rounds, its first `most - 1` and its last.

    Methods, federated optimizer and server are the real ones; clients return what they must. The
    identity tokens, [width], of different tasks are orthogonal, so that each task opens a subspace of
    its own as long as the method may open more.
    """
    wire = experiment.config.federation.wire
    ranks = experiment.config.federation.ranks
    rules = Federation(outlier_factor=0, ranks=ranks)  # its others change no size
    engine = _EchoEngine(experiment, width)
    numbers = experiment.method.token_width(engine.width * engine.parts)
    run = replace(experiment.federated_run(numbers), federation=rules, privacy=Privacy())
    method, setting = run.method, run.setting
    blank, projector = size.blank(method.rank), size.blank_projector()
    state = method.start(blank, projector, experiment.config.seed)
    stages: list[StageTraffic] = []
    for stage, rounds in zip(setting.stages, run.plan, strict=True):
        state = begun(run, state, stage)
        down, up = list[list[int]](), list[list[int]]()
        jobs: Sequence[Job] = []
        grew = False
        chosen = [*rounds[: min(most, len(rounds)) - 1], rounds[len(rounds) - 1]]
        for number, turns in enumerate(chosen):
            if grew or number in (0, len(chosen) - 1):  # else a round is like the one before
                adapters = len(state.adapters)
                state, report = take_round(run, state, turns, engine)
                grew = len(state.adapters) > adapters
                jobs, identities = report.jobs, report.identities
            else:
                identities = list(engine.identify(method.to_identify(state, turns)))
                state, jobs = hand_out(run, state, turns, identities)
            updates = list(engine.run(jobs))
            tokens = {identity.client: nbytes({"": identity.token}) for identity in identities}
            down.append([_wire_bytes(job.received, wire) for job in jobs])
            up.append(
                [_wire_bytes(update, wire) + tokens.get(update.client, 0) for update in updates]
            )
        turn = replace(jobs[0].turn, last=False)
        _, (usual,) = hand_out(run, state, [turn], [])
        state = ended(run, state, stage)
        stages.append(StageTraffic(down, up, jobs[0], usual))
    return stages


def _wire_bytes(message: State | Update, wire: Wire) -> int:
    return sum(packed_bytes(part, wire) for parts in kinds(message) for part in parts.values())


class _EchoEngine:
    """An engine whose clients return tensors like those that the server expects of them."""

    def __init__(self, experiment: Experiment, width: int):
        self.experiment, self.parts = experiment, 2 if experiment.method.identity == "both" else 1
        self.width = max(width // self.parts, 64)
        self.tasks: dict[str, int] = {}

    def identify(self, turns: Sequence[Turn]) -> Iterator[Identity]:
        from torch import cat, zeros

        method = self.experiment.method
        limit = method.subspace_limit
        for turn in turns:
            feature = zeros(self.width)
            number = self.tasks.setdefault(turn.task.name, len(self.tasks))
            feature[number % min(len(feature), limit or len(feature))] = 1
            token = method.make_token(cat([feature] * self.parts)[None])
            yield Identity(turn.client, turn.task.name, token, 1)

    def run(self, jobs: Sequence[Job]) -> Iterator[Update]:
        method, optimizer = self.experiment.method, self.experiment.optimizer
        for job in jobs:
            received, expected = job.received, method.expects(job.received)
            own = [name for name in method.trained_extras if name != SHARED_PROJECTOR]
            trained = [
                *expected.adapters.values(),
                *(expected.extras.get(name, {}) for name in own),
            ]
            tensors = [value for weights in trained for value in weights.values()]
            projector = list((received.projector or {}).values())
            names = groups(method.trains(received), bool(projector))
            by_group = {k: v for k, v in zip(names, (tensors, projector), strict=True) if v}
            sent = optimizer.local(job.turn, by_group, received.optimizer, {}).report()[0]
            metrics = {"loss": 0.0}
            yield Update(job.turn.client, 1, expected.adapters, expected.extras, metrics, sent)
