"""Accuracies from sums that clients send, for federations whose server has no test data.

Sums are taken at their word: a client that lies about its scores, or about how many they are, moves the
accuracies. What cannot be is refused, what can be is believed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from fcit.files import read_json, write_json
from fcit.rounds.acceptance import MOST_SAMPLES
from fcit.rounds.replies import named
from fcit.types import Fault, FcitError, Score, State
from fcit.watch import Watch
from fcit.worker.experiment import Experiment


class Scoring(Protocol):
    """An engine's part in this."""

    def place(self, state: State) -> None:
        """Put a state in place."""
        ...

    def score(self, dataset: str, clients: Sequence[int]) -> Iterator[Score | Fault]:
        """Clients' scores on their own test samples."""
        ...


def file(run: Path, stage: str, dataset: str) -> Path:
    """Where a dataset's sums after a stage are kept."""
    return run / "scores" / stage / f"{dataset}.json"


def ask(
    experiment: Experiment,
    run: Path,
    engine: Scoring,
    state: State,
    stage: str,
    names: Collection[str],
    watch: Watch,
) -> None:
    """Ask all clients for their sums of the datasets that have none yet after a stage.

    A client that gives no usable sum is named and left out. Raises FcitError when nobody has a test
    sample of a dataset.
    """
    left = [name for name in names if not file(run, stage, name).is_file()]
    if left:
        engine.place(state)
    for name in left:
        clients = list(range(experiment.setting.clients))
        scores, faults = sums(engine.score(name, clients), name, clients)
        for fault in faults:
            watch.say(f"scores of {name}: {named(fault)}")
        count = sum(one.count for one in scores)
        if not count:
            raise FcitError(f"{name}: no client has scored a test sample of it")
        total = sum(one.total for one in scores)
        value = {"total": total, "count": count, "clients": len(scores), "faults": len(faults)}
        write_json(file(run, stage, name), value)


def percent(run: Path, stage: str, dataset: str) -> float:
    """The accuracy (percent) that the clients' sums of a dataset make."""
    found = read_json(file(run, stage, dataset))
    return round(found["total"] / found["count"], 4)


def sums(
    came: Iterator[Score | Fault], dataset: str, clients: Sequence[int]
) -> tuple[list[Score], list[Fault]]:
    """Usable sums by client id, and what was wrong with the others."""
    good: dict[int, Score] = {}
    faults: list[Fault] = []
    for one in came:
        if isinstance(one, Fault):
            faults.append(one)
        elif one.client not in clients or one.dataset != dataset:
            faults.append(Fault(one.client, "stranger", "sent a sum that nobody asked for"))
        elif one.client in good:
            faults.append(Fault(one.client, "duplicate", "sent its sum twice; the first counts"))
        elif not _possible(one.total, one.count):
            what = f"says {one.total!r} of {one.count!r} samples"
            faults.append(Fault(one.client, "samples", what))
        else:
            good[one.client] = one
    return [good[client] for client in sorted(good)], faults


def _possible(total: object, count: object) -> bool:
    """Whether a client may have so many samples, and they so much together (each 0 to 100)."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < MOST_SAMPLES:
        return False
    if isinstance(total, bool) or not isinstance(total, int | float):
        return False
    return 0 <= total <= 100 * count
