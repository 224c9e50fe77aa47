"""fcit's frames as Flower's messages, and what a message that comes back says: a reply or a fault."""

import json

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

import fcit
from fcit.engines import wire
from fcit.types import Fault, FcitError, Weights, one_line
from fcit.weights import from_bytes, to_bytes
from fcit.worker.cache import code

LOST = (3, 4, 5)
"""Flower's error codes for a message, a reply or a node that is gone; fcit sends the message again."""


def pack(header: wire.Header, weights: Weights) -> RecordDict:
    """A message's content. Tensors travel as safetensors bytes, as NumPy has no bf16."""
    records = RecordDict({"header": ConfigRecord({"json": json.dumps(header)})})
    if weights:
        data = to_bytes(weights)
        records["body"] = ArrayRecord({"": Array("uint8", (len(data),), "safetensors", data)})
    return records


def unpack(records: RecordDict) -> wire.Frame:
    """The inverse of `pack`. Raises FcitError for anything else."""
    try:
        header = wire.read_header(str(records.config_records["header"]["json"]))
        body = records.array_records.get("body")
        return header, from_bytes(body[""].data) if body is not None else {}
    except (KeyError, ValueError) as error:
        raise FcitError(f"not a message of fcit: {error!r}") from None


def is_lost(message: Message) -> bool:
    """Whether the message it answers must be sent again."""
    return message.has_error() and message.error.code in LOST


def read_reply(client: int, message: Message) -> wire.Frame | Fault:
    """What a client answered, or its fault."""
    if message.has_error():
        return Fault(client, "crash", message.error.reason or "Flower gives no reason")
    try:
        header, weights = unpack(message.content)
    except FcitError as error:
        return Fault(client, "garbled", str(error))
    if "error" in header:
        kind = "timeout" if header.get("kind") == "timeout" else "crash"
        return Fault(client, kind, str(header["error"]))
    return header, weights


def read_hello(message: Message, name: str = "") -> int:
    """The client that a node says it is. Raises FcitError where it cannot be one. name: that under which
    its key is registered."""
    reply = read_reply(-1, message)
    if isinstance(reply, Fault):
        who = f"the node {name}" if name else "a node"
        raise FcitError(f"{who} did not say which client it is: {reply.detail}")
    client, version, unready = (reply[0].get(key) for key in ("client", "fcit", "unready"))
    own = fcit.__version__
    same = "install the same commit everywhere (docs/deploy.md)"
    if type(client) is not int:
        raise FcitError(one_line(f"a node says it is client {client!r}"))
    if version != own:
        raise FcitError(
            one_line(f"client {client} has fcit {version}, this server has {own}; {same}")
        )
    if reply[0].get("code") != code():  # an earlier fcit sends none
        raise FcitError(
            f"client {client} runs other code of fcit {own} than this server (another commit, or a "
            f"changed file); {same}"
        )
    if unready:
        raise FcitError(
            one_line(f"client {client} is not ready for all stages of the run: {unready}")
        )
    return client
