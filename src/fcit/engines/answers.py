"""What comes back through Flower, taken for what it is: a value, or the fault it tells of."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import TypeVar

from flwr.app import Message

from fcit.engines import parcels, wire
from fcit.engines.node import Reply
from fcit.types import Fault, FcitError, Identity, Score, Update, Weights

LOST = (3, 4, 5)
"""Flower's error codes for a message, a reply or a node that is gone: the message is sent again."""

LINE = 300
"""Characters of a client's own words that are kept."""

Answered = TypeVar("Answered", Identity, Update, Score)


def lost(message: Message) -> bool:
    """Whether a message says that nothing will come of the one it answers."""
    return message.has_error() and message.error.code in LOST


def opened(client: int, message: Message) -> Reply | Fault:
    """What a message holds, or the fault that it tells of."""
    if message.has_error():
        return Fault(client, "crash", _line(message.error.reason or "Flower gives no reason"))
    try:
        header, weights = parcels.unpack(message.content)
    except FcitError as error:
        return Fault(client, "garbled", _line(error))
    if "error" in header:
        kind = "timeout" if header.get("kind") == "timeout" else "crash"
        return Fault(client, kind, _line(header["error"]))
    return header, weights


def read(
    client: int, reply: Reply | Fault, unpack: Callable[[wire.Header, Weights], Answered]
) -> Answered | Fault:
    """A reply as what was asked for; a Fault where it is something else, or another client's."""
    if isinstance(reply, Fault):
        return reply
    try:
        found = unpack(*reply)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Fault(client, "garbled", _line(f"not what was asked for: {error!r}"))
    if found.client != client:
        return Fault(client, "garbled", _line(f"answered as client {found.client}"))
    return found


def who(message: Message) -> int | str:
    """The client that a node says it is; why it cannot be one, where it cannot."""
    found = opened(-1, message)
    if isinstance(found, Fault):
        return f"a node did not say which client it is: {found.detail}"
    client, theirs = found[0].get("client"), found[0].get("fcit")
    mine = importlib.metadata.version("fcit")
    if not isinstance(client, int):
        return _line(f"a node says it is client {client!r}")
    if theirs != mine:
        return _line(f"client {client} has fcit {theirs}, this server has {mine}")
    return client


def _line(said: object) -> str:
    """What a client says, as one short line: it goes into the log."""
    return " ".join(str(said).split())[:LINE]
