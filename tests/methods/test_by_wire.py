"""Kept in memory or sent and saved as bytes: a method's state and messages give the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest
import torch

from fcit import methods
from fcit.benchmark import datasets
from fcit.engines import wire
from fcit.methods import Method
from fcit.rounds.client import Data, Training, take_turn
from fcit.rounds.server import FederatedRun, federate
from fcit.seeds import torch_stream
from fcit.types import Identity, Job, Setting, Stage, State, Task, Turn, Update, Weights
from fcit.weights import flatten, from_bytes, to_bytes, unflatten

NAMES = ("IconQA", "FigureQA")
SETTING = Setting("two", tuple(Stage((Task(name, (name,)),)) for name in NAMES), 2, 2, 2)
PLAN = [
    [
        [Turn(client, stage.tasks[0], number, index, index == 1) for client in range(2)]
        for index in range(2)
    ]
    for number, stage in enumerate(SETTING.stages)
]
LEARNERS = [
    name for name in methods.names() if name != "zeroshot" and not methods.find(name).single_row
]


def by_bytes(weights: Weights) -> Weights:
    return from_bytes(to_bytes(weights)) if weights else {}


class Clients:
    """Both clients in this process; messages go through `through`."""

    def __init__(self, lmm, suite, method: Method, through: Callable[[Weights], Weights]):
        self.lmm, self.suite, self.method, self.through = lmm, suite, method, through

    def identify(self, turns: Sequence[Turn]) -> list[Identity]:
        """Tokens that tell the datasets apart."""
        tasks = [turn.task.name for turn in turns]
        rows = [torch.eye(4)[[NAMES.index(task)]].repeat(2, 1) for task in tasks]
        return [
            Identity(turn.client, task, self.method.make_token(features), 2)
            for turn, task, features in zip(turns, tasks, rows, strict=True)
        ]

    def run(self, jobs: Sequence[Job]) -> Iterable[Update]:
        for job in jobs:
            header, weights = wire.pack_job(job, {})
            again, memory = wire.unpack_job(header, self.through(weights))
            first = 2 * job.turn.client
            samples = datasets.read(self.suite, job.turn.task.name, "train")[first : first + 2]
            data = Data(samples, [datasets.image_path(self.suite, one) for one in samples])
            training = Training(lr=1e-2, batch_size=1)
            update, memory = take_turn(again, self.method, self.lmm, data, training, 0, memory)
            header, weights = wire.pack_update(update, memory)
            yield wire.unpack_update(header, self.through(weights))


def federated(lmm, suite, name: str, through: Callable[[Weights], Weights], saved: bool) -> State:
    """The state after two stages; `saved`: taken up anew from bytes after every round and stage."""
    method = methods.find(name)(rank=2)
    blank = lmm.subspaces.blank(2, 0.01, torch_stream(0, "init"))
    state = method.start(blank, lmm.base_projector, 7)
    clients = Clients(lmm, suite, method, through)
    run = FederatedRun(SETTING, PLAN, method)
    if not saved:
        *_, (state, _, _) = federate(run, state, clients)
        return state
    done = None
    for _ in range(6):  # four rounds and two ends of stages
        commits = (
            (after, at) for after, at, _ in federate(run, state, clients, done) if at != done
        )
        after, done = next(commits)
        state = unflatten(by_bytes(flatten(after)))
    return state


@pytest.mark.parametrize("name", LEARNERS)
def test_bytes_change_nothing(name: str, lmm, suite) -> None:
    kept = flatten(federated(lmm, suite, name, lambda weights: weights, saved=False))
    sent = flatten(federated(lmm, suite, name, by_bytes, saved=True))
    assert kept.keys() == sent.keys()
    assert all(kept[key].equal(sent[key]) for key in kept)
    lmm.receive(State(), 2.0)
