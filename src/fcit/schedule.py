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
    reference implementation, `RandomState(10 * stage + round)`, whatever the seed.

    Raises FcitError when a stage has neither one task nor one for each client of a round.
    """
    for number, stage in enumerate(setting.stages, 1):
        if len(stage.tasks) not in (1, setting.per_round):
            raise FcitError(
                f"{setting.name}, stage {number}: {len(stage.tasks)} tasks for "
                f"{setting.per_round} clients a round; there must be one task, or one for each"
            )
    return [
        [_round(setting, seed, sampling, stage, number) for number in range(setting.rounds)]
        for stage in range(len(setting.stages))
    ]


def sample(setting: Setting, seed: int, sampling: Sampling, stage: int, number: int) -> list[int]:
    """The clients of one round (stage and round from 0), ascending, without replacement."""
    if not 1 <= setting.per_round <= setting.clients:
        raise FcitError(
            f"federation.per_round = {setting.per_round}; it must lie between 1 and the "
            f"{setting.clients} clients"
        )
    if sampling == "reference":
        from numpy.random import RandomState

        drawn = RandomState(10 * stage + number).choice(
            setting.clients, setting.per_round, replace=False
        )
    elif sampling == "derived":
        rng = numpy_stream(seed, "schedule", stage, number)
        drawn = rng.choice(setting.clients, setting.per_round, replace=False)
    else:
        raise FcitError(f"setting.sampling: {sampling!r}; there are derived and reference")
    return sorted(int(client) for client in drawn)


def _round(setting: Setting, seed: int, sampling: Sampling, stage: int, number: int) -> list[Turn]:
    clients = sample(setting, seed, sampling, stage, number)
    tasks = setting.stages[stage].tasks
    if len(tasks) == 1:
        tasks = tasks * len(clients)
    last = number == setting.rounds - 1
    return [
        Turn(client, task, stage, number, last) for client, task in zip(clients, tasks, strict=True)
    ]
