"""A round's replies: taken one by one, judged, kept in a journal, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import Protocol

from fcit.aggregation.packing import Wire
from fcit.methods import Method
from fcit.optimizers import Optimizer
from fcit.rounds.acceptance import Reply, bad_token, forms, garbled, judge
from fcit.types import Fault, Identity, Job, Turn, Update

SPREADS = ("change", "statistics", "optimizer")
"""What of a reply has a size to compare (see `acceptance.Reply`)."""


class Journal(Protocol):
    """Where accepted replies wait for the end of their round."""

    def begin(self, stage: int, number: int) -> None:
        """A round (from 0) of a stage begins, or goes on; what is left of others is forgotten."""
        ...

    def identities(self) -> tuple[list[Identity], list[Fault]] | None:
        """The round's tokens and who gave none, once they are known."""
        ...

    def keep_identities(self, identities: Sequence[Identity], faults: Sequence[Fault]) -> None:
        """Remember them."""
        ...

    def replies(self) -> dict[int, Reply]:
        """The round's replies so far, by client."""
        ...

    def keep(self, reply: Reply) -> Reply:
        """Remember a reply; what is given back need not be in memory."""
        ...

    def quarantine(self, update: Update, fault: Fault) -> None:
        """Put a bad update aside, to be looked at; it is no reply any more."""
        ...


@dataclass
class InMemory:
    """A journal that ends with its process."""

    bad: list[tuple[Update, Fault]] = field(default_factory=list[tuple[Update, Fault]])

    def begin(self, stage: int, number: int) -> None:
        """Nothing is left of other rounds."""

    def identities(self) -> tuple[list[Identity], list[Fault]] | None:
        return None

    def keep_identities(self, identities: Sequence[Identity], faults: Sequence[Fault]) -> None:
        """They are in the round's hands."""

    def replies(self) -> dict[int, Reply]:
        return {}

    def keep(self, reply: Reply) -> Reply:
        return reply

    def quarantine(self, update: Update, fault: Fault) -> None:
        self.bad.append((update, fault))


def tokens(
    came: Iterable[Identity | Fault], asked: Sequence[Turn], width: int | None
) -> tuple[list[Identity], list[Fault]]:
    """Identity tokens by client id, and what was wrong with the others.

    `width`: how many numbers a token must have; None where the method has none yet to compare with,
    and then what most of these tokens have."""
    turns = {turn.client: turn for turn in asked}
    good: dict[int, Identity] = {}
    faults: list[Fault] = []
    for one in came:
        if isinstance(one, Fault):
            faults.append(one)
        elif one.client in good:
            faults.append(Fault(one.client, "duplicate", "sent its token twice; the first counts"))
        elif wrong := _wrong(one, turns):
            faults.append(wrong)
        else:
            good[one.client] = one
    widths = Counter(len(one.token) for _, one in sorted(good.items()))
    width = width or max(widths, key=widths.__getitem__, default=0)
    for client in [client for client, one in good.items() if len(one.token) != width]:
        length = len(good.pop(client).token)
        detail = f"its token has {length} numbers, the others have {width}"
        faults.append(Fault(client, "shape", detail))
    answered = good.keys() | {fault.client for fault in faults}
    faults += [
        Fault(client, "silent", "sent no token") for client in turns if client not in answered
    ]
    return [good[client] for client in sorted(good)], _in_order(faults)


def _wrong(one: Identity, turns: Mapping[int, Turn]) -> Fault | None:
    try:
        wrong = bad_token(one, turns)
    except Exception as error:
        return garbled(one.client, error)
    return Fault(one.client, *wrong) if wrong else None


def gather(
    came: Iterable[Update | Fault],
    jobs: Sequence[Job],
    method: Method,
    optimizer: Optimizer,
    journal: Journal,
    wire: Wire = "float32",
    absurd: float = 0.0,
) -> tuple[list[Reply], list[Fault]]:
    """A round's accepted replies by client id, those in the journal included, and what was wrong.

    Replies are judged as they come; what can only be judged beside the others' (absurd: a change, or
    statistics, or an optimizer's tensors, more than so many times as large as the median ones; 0: no
    bound) is judged at the end.
    """
    asked = {job.turn.client: job for job in jobs}
    replies = {client: reply for client, reply in journal.replies().items() if client in asked}
    faults: list[Fault] = []
    for one in came:
        if isinstance(one, Fault):
            faults.append(one)
            continue
        reply = judge(one, asked, replies, method, optimizer, wire)
        if isinstance(reply, Fault):
            faults.append(reply)
            journal.quarantine(one, reply)
        else:
            replies[one.client] = journal.keep(reply)
    for fault in [*_absurd(replies, absurd), *_odd_ones(replies, asked)]:
        if fault.client in replies:
            journal.quarantine(replies.pop(fault.client).update, fault)
            faults.append(fault)
    answered = replies.keys() | {fault.client for fault in faults}
    faults += [
        Fault(client, "silent", "sent no reply") for client in asked if client not in answered
    ]
    return [replies[client] for client in sorted(replies)], _in_order(faults)


def _absurd(replies: Mapping[int, Reply], bound: float) -> list[Fault]:
    """What is out of all proportion to the round's median, per number (sizes may differ).

    Statistics are squares of gradients, and honest clients' differ by the square of what gradients do:
    so does what they may."""
    found: dict[int, Fault] = {}
    for what in SPREADS if bound else ():
        sizes = {k: one.spread[what] for k, one in sorted(replies.items()) if what in one.spread}
        usual = median_low(sizes.values()) if sizes else 0.0
        for client, size in sizes.items():
            if usual and size > (bound**2 if what == "statistics" else bound) * usual:
                times = f"{size / usual:.3g} times as large as the round's median"
                found.setdefault(client, Fault(client, "norm", f"its {what}: {times}"))
    return list(found.values())


def _odd_ones(replies: Mapping[int, Reply], asked: Mapping[int, Job]) -> list[Fault]:
    """What optimizers send for the first time can only be compared with what the others send."""
    found: dict[str, dict[int, object]] = {}
    for client, reply in sorted(replies.items()):
        for group in reply.update.optimizer.keys() - asked[client].received.optimizer.keys():
            found.setdefault(group, {})[client] = forms(reply.update.optimizer[group])
    faults: list[Fault] = []
    for group, shown in sorted(found.items()):
        usual = Counter(shown.values()).most_common(1)[0][0]
        faults += [
            Fault(client, "shape", f"optimizer: {group} is not of the form of the others'")
            for client, form in shown.items()
            if form != usual
        ]
    return faults


def _in_order(faults: Sequence[Fault]) -> list[Fault]:
    return sorted(faults, key=lambda one: (one.client, one.kind))


def named(fault: Fault) -> str:
    """A fault in a sentence."""
    return f"client {fault.client} ({fault.kind}: {fault.detail})"
