"""The stage and round loop: federate() is federated continual instruction tuning on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from fcit.averaging import Average, exact
from fcit.methods import Method
from fcit.optimisers import Optimiser
from fcit.optimisers.base import conclude, groups, renew
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
    optimiser: Optimiser | None = None,
    average: Average = "factors",
) -> State:
    """Run what is left of a plan and return the final state.

    `plan` is [stage][round][slot] (see `schedule.plan`); `state` the method's start, or what stood
    after `done`. `after_round` and `after_stage` commit what they are given: a run that is cut off
    and goes on from there ends in the same bits. `optimiser` (none: FedAvg) works beside any method.
    """
    done, optimiser = done or Position(), optimiser or Optimiser()
    for number, stage in enumerate(setting.stages):
        if number < done.stage:
            continue
        resumed = number == done.stage
        if not (resumed and done.rounds):
            state = renew(state, method.begin(state, stage))
            state = replace(state, optimiser=optimiser.begin(state.optimiser))
        if not (resumed and done.ended):
            for index in range(done.rounds if resumed else 0, len(plan[number])):
                turns = plan[number][index]
                state, report = take_round(
                    turns, method, state, engine, setting.epochs, optimiser, average
                )
                after_round(state, replace(report, position=Position(number, index + 1)))
            state = replace(method.end(state, stage), optimiser=state.optimiser)
        after_stage(state, Position(number, len(plan[number]), True))
    return state


def take_round(
    turns: Sequence[Turn],
    method: Method,
    state: State,
    engine: Engine,
    epochs: int,
    optimiser: Optimiser | None = None,
    average: Average = "factors",
) -> tuple[State, Round]:
    """Identify, organise, send, train, aggregate, step: one round of one stage."""
    optimiser = optimiser or Optimiser()
    state, identities, jobs = hand_out(turns, method, state, engine, epochs, optimiser)
    updates = sorted(engine.run(jobs), key=lambda update: update.client)
    after = method.aggregate(state, updates)
    if average == "product":
        after = exact(after, updates)
    after = conclude(optimiser, state, after, turns, updates, method.learnt)
    return after, Round(Position(), jobs, updates, identities)


def hand_out(
    turns: Sequence[Turn],
    method: Method,
    state: State,
    engine: Engine,
    epochs: int,
    optimiser: Optimiser,
) -> tuple[State, list[Identity], list[Job]]:
    """Identify, organise, send: a round's first half."""
    identities = sorted(engine.identify(method.unknown(state, turns)), key=lambda one: one.client)
    state = renew(state, method.organise(state, identities))
    jobs = [Job(turn, _sent(method, optimiser, state, turn), epochs) for turn in turns]
    return state, identities, jobs


def _sent(method: Method, optimiser: Optimiser, state: State, turn: Turn) -> State:
    """What a client gets: the method's part and the optimiser's."""
    sent = method.send(state, turn)
    trained = groups(method.trains(sent), "projector" in sent.extras)
    return replace(sent, optimiser=optimiser.send(state.optimiser, trained))
