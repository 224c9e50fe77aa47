"""Who trains on what, and when: the clients of every round and the task of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, overload

from fcit.seeds import numpy_stream
from fcit.types import Setting, Task, Turn

Sampling = Literal["derived", "reference"]


@dataclass(frozen=True)
class Rounds(Sequence[tuple[Turn, ...]]):
    """The rounds of one stage; a round's clients are drawn when it is looked at."""

    setting: Setting
    seed: int
    sampling: Sampling
    stage: int

    def __len__(self) -> int:
        return self.setting.rounds_of(self.setting.stages[self.stage])

    @overload
    def __getitem__(self, index: int) -> tuple[Turn, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Turn, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Turn, ...] | list[tuple[Turn, ...]]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        clients = self._clients(numbers)
        tasks, last = self.setting.stages[self.stage].tasks, numbers == len(self) - 1
        tasks = tasks if len(tasks) > 1 else tasks * len(clients)
        return tuple(
            Turn(client, task, self.stage, numbers, last)
            for client, task in zip(clients, tasks, strict=True)
        )

    def _clients(self, number: int) -> list[int]:
        """The clients of one round (from 0), ascending, drawn without replacement."""
        pool, count = self.setting.pool(self.setting.stages[self.stage]), self.setting.per_round
        if self.sampling == "reference":
            from numpy.random import RandomState

            drawn = RandomState(10 * self.stage + number).choice(len(pool), count, replace=False)
        else:
            rng = numpy_stream(self.seed, "schedule", self.stage, number)
            drawn = rng.choice(len(pool), count, replace=False)
        return sorted(pool[index] for index in drawn)


def plan(setting: Setting, seed: int, sampling: Sampling = "derived") -> list[Rounds]:
    """The turns of a run, [stage][round][slot]; clients ascend within a round.

    The sampled clients take a stage's tasks in ascending order of their ids, so a client may meet
    another task next round. "derived" draws from the run's seed; "reference" repeats the draws of the
    reference implementation, `RandomState(10 * stage + round)`, whatever the seed. A stage that names
    its clients samples from them alone.
    """
    seed = 0 if sampling == "reference" else seed  # whatever the seed is
    return [Rounds(setting, seed, sampling, at) for at in range(len(setting.stages))]


def tasks_met(plan: Sequence[Rounds], turn: Turn) -> list[Task]:
    """The tasks that a turn's client had turns with in earlier stages, in order of first appearance."""
    return tasks_of(plan[: turn.stage], turn.client)


def tasks_of(plan: Sequence[Rounds], client: int) -> list[Task]:
    """The tasks that a client has turns with, in order of first appearance."""
    met = (_met(rounds).get(client, ()) for rounds in plan)
    return list(dict.fromkeys(task for tasks in met for task in tasks))


def learners(plan: Sequence[Rounds], name: str) -> list[tuple[int, Task]]:
    """The clients that have turns with a task of this name, each with the task."""
    met = [(client, tasks) for rounds in plan for client, tasks in _met(rounds).items()]
    pairs = ((client, task) for client, tasks in met for task in tasks if task.name == name)
    return list(dict.fromkeys(pairs))


@lru_cache(64)
def _met(rounds: Rounds) -> dict[int, dict[Task, None]]:
    """Every client's tasks in a stage."""
    met: dict[int, dict[Task, None]] = {}
    for turn in (turn for turns in rounds for turn in turns):
        met.setdefault(turn.client, {})[turn.task] = None
    return met
