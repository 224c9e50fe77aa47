"""Who trains on what, and when: the clients of every round and the task of each."""

from __future__ import annotations

from typing import Literal

from fcit.seeds import numpy_stream
from fcit.types import FcitError, Setting, Turn

Sampling = Literal["derived", "reference"]


def plan(setting: Setting, seed: int, sampling: Sampling = "derived") -> list[list[list[Turn]]]:
    """The turns of a run, [stage][round][slot]; clients ascend within a round.

    The sampled clients take a stage's tasks in ascending order of their ids, so a client may meet
    another task next round. "derived" draws from the run's seed; "reference" repeats the draws of the
    reference implementation, `RandomState(10 * stage + round)`, whatever the seed. A stage that names
    its clients samples from them alone.

    Raises FcitError when a stage has neither one task nor one for each client of a round, or fewer
    clients than a round needs.
    """
    for number, stage in enumerate(setting.stages, 1):
        if not 1 <= setting.per_round <= len(setting.pool(stage)) <= setting.clients:
            raise FcitError(
                f"{setting.name}, stage {number}: federation.per_round = {setting.per_round}, but "
                f"{len(setting.pool(stage))} of the {setting.clients} clients are there"
            )
        if len(stage.tasks) not in (1, setting.per_round):
            raise FcitError(
                f"{setting.name}, stage {number}: {len(stage.tasks)} tasks for "
                f"{setting.per_round} clients a round; there must be one task, or one for each"
            )
    return [
        [_round(setting, seed, sampling, at, number) for number in range(setting.rounds_of(stage))]
        for at, stage in enumerate(setting.stages)
    ]


def sample(setting: Setting, seed: int, sampling: Sampling, stage: int, number: int) -> list[int]:
    """The clients of one round (stage and round from 0), ascending, without replacement."""
    pool = setting.pool(setting.stages[stage])
    if sampling == "reference":
        from numpy.random import RandomState

        drawn = RandomState(10 * stage + number).choice(len(pool), setting.per_round, replace=False)
    elif sampling == "derived":
        rng = numpy_stream(seed, "schedule", stage, number)
        drawn = rng.choice(len(pool), setting.per_round, replace=False)
    else:
        raise FcitError(f"setting.sampling: {sampling!r}; there are derived and reference")
    return sorted(pool[place] for place in drawn)


def _round(setting: Setting, seed: int, sampling: Sampling, stage: int, number: int) -> list[Turn]:
    clients = sample(setting, seed, sampling, stage, number)
    tasks = setting.stages[stage].tasks
    if len(tasks) == 1:
        tasks = tasks * len(clients)
    last = number == setting.rounds_of(setting.stages[stage]) - 1
    return [
        Turn(client, task, stage, number, last) for client, task in zip(clients, tasks, strict=True)
    ]
