"""A round's replies: checked one by one, kept in a journal, and compared with each other."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median_low
from typing import TypeVar

from fcit.aggregation.packing import Wire
from fcit.methods import Method
from fcit.optimizers import Optimizer
from fcit.rounds.acceptance import Rejected, Reply, check_token, check_update, fault, forms
from fcit.rounds.journal import Journal
from fcit.types import Fault, Identity, Job, Turn, Update

T = TypeVar("T")

SPREADS = ("change", "statistics", "optimizer")
"""The sizes of a reply that are compared with the other clients' (see `acceptance.Reply`)."""


def tokens(
    incoming: Iterable[Identity | Fault], asked: Sequence[Turn], width: int | None
) -> tuple[list[Identity], list[Fault]]:
    """Identity tokens by client id, and what was wrong with the others.

    width: how many numbers a token must have; None where the method has none yet to compare with, and
    then what most of these tokens have.
    """
    turns = {turn.client: turn for turn in asked}
    good: dict[int, Identity] = {}
    faults: list[Fault] = []
    for reply in incoming:
        if isinstance(reply, Fault):
            faults.append(reply)
            continue
        try:
            if reply.client in good:
                raise Rejected("duplicate", "sent its token twice; the first counts")
            check_token(reply, turns)
            good[reply.client] = reply
        except Exception as error:
            faults.append(fault(reply.client, error))
    widths = Counter(len(identity.token) for _, identity in sorted(good.items()))
    width = width or max(widths, key=widths.__getitem__, default=0)
    for client, identity in list(good.items()):
        if len(identity.token) != width:
            detail = f"its token has {len(identity.token)} numbers, the others have {width}"
            faults.append(Fault(client, "shape", detail))
            del good[client]
    return _complete(good, faults, turns, "sent no token")


def gather(
    incoming: Iterable[Update | Fault],
    jobs: Sequence[Job],
    method: Method,
    optimizer: Optimizer,
    journal: Journal,
    wire: Wire = "float32",
    outlier_factor: float = 0.0,
) -> tuple[list[Reply], list[Fault]]:
    """A round's accepted replies by client id, those in the journal included, and what was wrong with
    the others.

    Updates are checked as they come; sizes and shapes that can only be compared with those of the other
    clients (outlier_factor: see `Federation`) are checked at the end.
    """
    asked = {job.turn.client: job for job in jobs}
    replies = {client: reply for client, reply in journal.replies().items() if client in asked}
    faults: list[Fault] = []

    for update in incoming:
        if isinstance(update, Fault):
            faults.append(update)
            continue
        try:
            reply = check_update(update, asked, replies, method, optimizer, wire)
        except Exception as error:
            faults.append(fault(update.client, error))
            journal.quarantine(update, faults[-1])
        else:
            replies[update.client] = journal.keep(reply)
    for reason in [*_outliers(replies, outlier_factor), *_odd_shapes(replies, asked)]:
        if reply := replies.pop(reason.client, None):
            faults.append(reason)
            journal.quarantine(reply.update, reason)
    return _complete(replies, faults, asked, "sent no reply")


def _complete(
    good: Mapping[int, T], faults: Sequence[Fault], asked: Iterable[int], silence: str
) -> tuple[list[T], list[Fault]]:
    """What is good by client id, and the faults by client id with those of the silent clients."""
    answered = good.keys() | {reason.client for reason in faults}
    silent = [Fault(client, "silent", silence) for client in asked if client not in answered]
    faults = sorted([*faults, *silent], key=lambda reason: (reason.client, reason.kind))
    return [good[client] for client in sorted(good)], faults


def _outliers(replies: Mapping[int, Reply], factor: float) -> list[Fault]:
    """Replies that are more than `factor` times as large as the round's median, per number.

    Statistics are squares of gradients, so the square of the factor applies to them.
    """
    faults: dict[int, Fault] = {}
    for what in SPREADS if factor else ():
        sizes = {
            k: reply.spread[what] for k, reply in sorted(replies.items()) if what in reply.spread
        }
        median = median_low(sizes.values()) if sizes else 0.0
        for client, size in sizes.items():
            if median and size > (factor**2 if what == "statistics" else factor) * median:
                times = f"{size / median:.3g} times as large as the round's median"
                faults.setdefault(client, Fault(client, "norm", f"its {what}: {times}"))
    return list(faults.values())


def _odd_shapes(replies: Mapping[int, Reply], asked: Mapping[int, Job]) -> list[Fault]:
    """What optimizers send for the first time can only be compared with what the others send."""
    shapes: dict[str, dict[int, object]] = {}
    for client, reply in sorted(replies.items()):
        for group in reply.update.optimizer.keys() - asked[client].received.optimizer.keys():
            shapes.setdefault(group, {})[client] = forms(reply.update.optimizer[group])
    faults: list[Fault] = []
    for group, by_client in sorted(shapes.items()):
        usual = Counter(by_client.values()).most_common(1)[0][0]
        faults += [
            Fault(client, "shape", f"optimizer: {group} has other shapes than the other clients'")
            for client, form in by_client.items()
            if form != usual
        ]
    return faults


def named(reason: Fault) -> str:
    """A fault in a sentence."""
    return f"client {reason.client} ({reason.kind}: {reason.detail})"
