"""A round's replies: checked one by one, kept in a journal, and compared with each other."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median_low
from typing import TypeVar

from fcit.aggregation.packing import Wire
from fcit.methods import Method
from fcit.optimizers import Optimizer
from fcit.rounds.acceptance import Rejected, Reply, check_token, check_update, fault, forms
from fcit.rounds.journal import Journal
from fcit.types import Fault, Identity, Job, Tensor, Turn, Update

T = TypeVar("T")

GO_ON_WITHOUT = (
    "or go on without these clients: fcit run --resume with --set federation.min_clients=N, "
    "in a deployment ./run federation.min_clients=N"
)
"""What to do where clients failed that need not be there."""

SPREADS = ("samples", "change", "statistics", "optimizer")
"""The sizes of a reply that are compared with the other clients' (see `acceptance.Reply`)."""


def tokens(
    incoming: Iterable[Identity | Fault],
    asked: Sequence[Turn],
    known: Sequence[Identity],
    stored: Tensor | None,
    outlier_factor: float,
    method: Method,
    width: int,
    dealt: bool = False,
) -> tuple[list[Identity], list[Fault]]:
    """Identity tokens by client id, those that are known already included, and what was wrong with the
    others.

    stored: the subspaces' tokens [K, w], to compare norms with. outlier_factor: see `Federation`.
    method: says what is wrong with its tokens. width: how many numbers a token has. dealt: the server
    knows the sample counts, so they are not compared.
    """
    turns = {turn.client: turn for turn in asked}
    good = {identity.client: identity for identity in known}
    faults: list[Fault] = []
    for reply in incoming:
        if isinstance(reply, Fault):
            faults.append(reply)
            continue
        try:
            if reply.client in good:
                raise Rejected("duplicate", "sent its token twice; the first counts")
            check_token(reply, turns, width)
            if detail := method.token_fault(reply.token):
                raise Rejected("garbled", detail)
            good[reply.client] = reply
        except Exception as error:
            faults.append(fault(reply.client, error))
    rows = [] if stored is None else list(stored)
    for what, part, factor in (
        ("token", method.token_mean, outlier_factor),
        ("second moment", lambda token: token, outlier_factor**2),  # of squares, as statistics
    ):
        sizes = {client: float(part(identity.token).norm()) for client, identity in good.items()}
        for client, times in _outliers(sizes, factor, [float(part(row).norm()) for row in rows]):
            faults.append(Fault(client, "norm", f"its {what}: {times}"))
            del good[client]
    counts = {} if dealt else {client: float(found.samples) for client, found in good.items()}
    if outlier_factor and median_low(counts.values() or [0]) == 1:
        # most clients hide how many samples they have (`privacy.hide_token`): the others are honest,
        # but nothing says how large they may be, so they count for so much at most
        most = max(1, int(outlier_factor))
        counts = {client: min(count, most) for client, count in counts.items()}
        for client, count in counts.items():
            good[client] = replace(good[client], samples=int(count))
    for client, times in _outliers(counts, outlier_factor):
        faults.append(Fault(client, "samples", f"its samples: {times}"))
        del good[client]
    return _complete(good, faults, turns, "sent no token")


def gather(
    incoming: Iterable[Update | Fault],
    jobs: Sequence[Job],
    known: Mapping[int, Reply],
    method: Method,
    optimizer: Optimizer,
    journal: Journal,
    wire: Wire = "float32",
    outlier_factor: float = 0.0,
    dealt: bool = False,
) -> tuple[list[Reply], list[Fault]]:
    """A round's accepted replies by client id, those `known` from the journal included, and what was
    wrong with the others.

    Updates are checked as they come; sizes and shapes that can only be compared with those of the other
    clients (outlier_factor: see `Federation`) are checked at the end. dealt: see `tokens`.
    """
    asked = {job.turn.client: job for job in jobs}
    replies = dict(known)
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
    compared = [what for what in SPREADS if what != "samples" or not dealt]
    odd = [*_odd_sizes(replies, compared, outlier_factor), *_odd_shapes(replies, asked)]
    for reason in odd:
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


def _outliers(
    sizes: Mapping[int, float], factor: float, others: Sequence[float] = ()
) -> list[tuple[int, str]]:
    """Clients whose size is more than `factor` times the median (0: nobody), and how many times it is.
    others: more sizes that count in the median."""
    median = median_low([*sizes.values(), *others]) if sizes and factor else 0.0
    return [
        (client, f"{size / median:.3g} times the round's median (see federation.outlier_factor)")
        for client, size in sorted(sizes.items())
        if median and size > factor * median
    ]


def _odd_sizes(replies: Mapping[int, Reply], compared: Sequence[str], factor: float) -> list[Fault]:
    """Replies too large beside the others. Statistics are squares: the factor's square applies."""
    faults: list[Fault] = []
    for what in compared:
        sizes = {k: reply.spread[what] for k, reply in replies.items() if what in reply.spread}
        limit = factor**2 if what == "statistics" else factor
        kind = "samples" if what == "samples" else "norm"
        faults += [Fault(k, kind, f"its {what}: {times}") for k, times in _outliers(sizes, limit)]
    return faults


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
