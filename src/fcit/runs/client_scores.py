"""Accuracies from scores that clients send, for federations whose server has no test data.

The server cannot check a score: a client that reports a wrong total or count moves the accuracy. Only
impossible values are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcit.rounds.acceptance import MOST_SAMPLES
from fcit.rounds.replies import GO_ON_WITHOUT, named
from fcit.rounds.runfolder import RunFolder
from fcit.types import Fault, FcitError, Score, Setting
from fcit.watch import Watch

if TYPE_CHECKING:
    from fcit.runs.engine import AnyEngine


def file(run: Path, stage: str, dataset: str) -> Path:
    """The file with a dataset's total score after a stage."""
    return run / "scores" / stage / f"{dataset}.json"


def needed(min_clients: int, setting: Setting) -> int:
    """How many clients' scores make an accuracy: the share that `min_clients` is of a round's clients; 0
    means all."""
    return -(-min_clients * setting.clients // setting.per_round) or setting.clients


def counts(run: RunFolder) -> dict[str, dict[str, int]]:
    """How many clients' scores each accuracy has, by stage and dataset."""
    found: dict[str, dict[str, int]] = {}
    for path in sorted(run.path.glob("scores/*/*.json")):
        found.setdefault(path.parent.name, {})[path.stem] = run.read(path)["clients"]
    return found


def ask(
    engine: AnyEngine, dataset: str, clients: Sequence[int], watch: Watch, needed: int
) -> dict[str, float | int]:
    """Ask clients for their scores of a dataset and return the total; the state must be in place.

    A client without a usable score is reported and left out. Raises FcitError where fewer than `needed`
    are left, and when no client has a test sample of the dataset.
    """
    scores, faults = usable(engine.score(dataset, clients), dataset, clients)
    if len(scores) < needed:
        raise FcitError(
            f"scores of {dataset}: {len(scores)} of {len(clients)} clients gave a valid score, and "
            f"{needed} are needed: "
            f"{'; '.join(map(named, faults))}. Fix the cause and continue the run, {GO_ON_WITHOUT}"
        )
    for fault in faults:
        watch.say(f"scores of {dataset}: {named(fault)}")
    count = sum(score.count for score in scores)
    if not count:
        raise FcitError(f"{dataset}: no client has scored a test sample of it")
    total = sum(score.total for score in scores)
    having = sum(score.count > 0 for score in scores)  # the others have no test sample of it
    return {"total": total, "count": count, "clients": having, "faults": len(faults)}


def percent(run: RunFolder, file: Path) -> float:
    """The accuracy (percent) in a file that holds what `ask` returned."""
    scores = run.read(file)
    total, count = scores.get("total"), scores.get("count")
    if not count or not _possible(total, count):
        raise FcitError(f"{file}: holds no scores; restore it from a copy")
    return total / count


def usable(
    replies: Iterator[Score | Fault], dataset: str, clients: Sequence[int]
) -> tuple[list[Score], list[Fault]]:
    """Usable scores by client id, and what was wrong with the others."""
    scores: dict[int, Score] = {}
    faults: list[Fault] = []
    for reply in replies:
        if isinstance(reply, Fault):
            faults.append(reply)
        elif reply.client not in clients or reply.dataset != dataset:
            faults.append(Fault(reply.client, "stranger", "sent a score that nobody asked for"))
        elif reply.client in scores:
            faults.append(
                Fault(reply.client, "duplicate", "sent its score twice; the first counts")
            )
        elif not _possible(reply.total, reply.count):
            detail = f"reports {reply.total!r} on {reply.count!r} samples"
            faults.append(Fault(reply.client, "samples", detail))
        else:
            scores[reply.client] = reply
    return [scores[client] for client in sorted(scores)], faults


def _possible(total: Any, count: Any) -> bool:
    """Whether a client can have so many samples with this total (each sample scores 0 to 100)."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < MOST_SAMPLES:
        return False
    if isinstance(total, bool) or not isinstance(total, int | float):
        return False
    return 0 <= total <= 100 * count
