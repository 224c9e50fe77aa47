"""The stage and round loop: federate() is federated continual instruction tuning on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from fcit.methods import Method
from fcit.types import Identity, Job, Setting, State, Turn, Update


class Engine(Protocol):
    """Whatever brings jobs to clients and their replies back, in any order."""

    def identify(self, turns: Sequence[Turn]) -> Iterable[Identity]:
        """Ask clients for their identity tokens."""
        ...

    def run(self, jobs: Sequence[Job]) -> Iterable[Update]:
        """Let clients train."""
        ...


@dataclass(frozen=True)
class Position:
    """How far a run is: `rounds` of stage `stage` are done; `ended` once the stage has ended too."""

    stage: int = 0
    rounds: int = 0
    ended: bool = False


@dataclass(frozen=True)
class Round:
    """What one round did, for the log: its jobs and updates by client id, its first-time tokens."""

    position: Position
    jobs: Sequence[Job]
    updates: Sequence[Update]
    identities: Sequence[Identity]


def federate(
    setting: Setting,
    plan: Sequence[Sequence[Sequence[Turn]]],
    method: Method,
    state: State,
    engine: Engine,
    after_round: Callable[[State, Round], None],
    after_stage: Callable[[State, Position], None],
    done: Position | None = None,
) -> State:
    """Run what is left of a plan and return the final state.

    `plan` is [stage][round][slot] (see `schedule.plan`); `state` the method's start, or what stood
    after `done`. `after_round` and `after_stage` commit what they are given: a run that is cut off
    and goes on from there ends in the same bits.
    """
    done = done or Position()
    for number, stage in enumerate(setting.stages):
        if number < done.stage:
            continue
        resumed = number == done.stage
        if not (resumed and done.rounds):
            state = method.begin(state, stage)
        if not (resumed and done.ended):
            for index in range(done.rounds if resumed else 0, len(plan[number])):
                state, report = take_round(
                    plan[number][index], method, state, engine, setting.epochs
                )
                after_round(state, replace(report, position=Position(number, index + 1)))
            state = method.end(state, stage)
        after_stage(state, Position(number, len(plan[number]), True))
    return state


def take_round(
    turns: Sequence[Turn], method: Method, state: State, engine: Engine, epochs: int
) -> tuple[State, Round]:
    """Identify, organise, send, train, aggregate: one round of one stage."""
    identities = sorted(engine.identify(method.unknown(state, turns)), key=lambda one: one.client)
    state = method.organise(state, identities)
    jobs = [Job(turn, method.send(state, turn), epochs) for turn in turns]
    updates = sorted(engine.run(jobs), key=lambda update: update.client)
    return method.aggregate(state, updates), Round(Position(), jobs, updates, identities)
