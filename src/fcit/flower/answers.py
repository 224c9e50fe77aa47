"""What comes back through Flower, taken for what it is: a reply, or the fault it tells of."""

from __future__ import annotations

import importlib.metadata

from flwr.app import Message

from fcit.engines.node import Reply
from fcit.flower import parcels
from fcit.types import Fault, FcitError, one_line

LOST = (3, 4, 5)
"""Flower's error codes for a message, a reply or a node that is gone: the message is sent again."""


def lost(message: Message) -> bool:
    """Whether a message says that nothing will come of the one it answers."""
    return message.has_error() and message.error.code in LOST


def opened(client: int, message: Message) -> Reply | Fault:
    """What a message holds, or the fault that it tells of."""
    if message.has_error():
        return Fault(client, "crash", message.error.reason or "Flower gives no reason")
    try:
        header, weights = parcels.unpack(message.content)
    except FcitError as error:
        return Fault(client, "garbled", str(error))
    if "error" in header:
        kind = "timeout" if header.get("kind") == "timeout" else "crash"
        return Fault(client, kind, str(header["error"]))
    return header, weights


def who(message: Message) -> int | str:
    """The client that a node says it is; why it cannot be one, where it cannot."""
    found = opened(-1, message)
    if isinstance(found, Fault):
        return f"a node did not say which client it is: {found.detail}"
    client, theirs = found[0].get("client"), found[0].get("fcit")
    mine = importlib.metadata.version("fcit")
    if not isinstance(client, int):
        return one_line(f"a node says it is client {client!r}")
    if theirs != mine:
        return one_line(f"client {client} has fcit {theirs}, this server has {mine}")
    return client
