"""Jobs and replies as bytes: a JSON header and a safetensors body; nothing else crosses a wire.

Clients write the headers of replies, so their types are checked; `unpack_reply` turns any error in one
into a Fault.
"""

import json
import struct
from collections.abc import Callable
from dataclasses import asdict
from typing import IO, Any, TypeVar

from fcit.types import Fault, FcitError, Identity, Job, Score, Task, Turn, Update, Weights
from fcit.weights import flatten, from_bytes, split_memory, to_bytes, unflatten

Header = dict[str, Any]
Frame = tuple[Header, Weights]
"""One message: its header, and its tensors."""

ReplyType = TypeVar("ReplyType", Identity, Update, Score)


def write_frame(stream: IO[bytes], header: Header, weights: Weights | None = None) -> None:
    """Send one message: two lengths, the header, the tensors."""
    head = json.dumps(header).encode()
    body = to_bytes(weights) if weights else b""
    stream.write(struct.pack("<QQ", len(head), len(body)) + head)
    stream.write(body)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Frame | None:
    """Receive one message; None when the other side is gone. Raises ValueError for an invalid header,
    and FcitError for a body that is not safetensors."""
    lengths = stream.read(16)
    if len(lengths) < 16:
        return None
    head, body = struct.unpack("<QQ", lengths)
    header, data = stream.read(head), stream.read(body)
    if len(header) < head or len(data) < body:
        return None
    return read_header(header), from_bytes(data) if body else {}


def read_header(text: str | bytes) -> Header:
    """A message's header. Raises ValueError for anything but a JSON object of usual depth."""
    try:
        header = json.loads(text)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header


def unpack_reply(
    client: int, reply: Frame | Fault, unpack: Callable[[Header, Weights], ReplyType]
) -> ReplyType | Fault:
    """What a client answered, or a Fault ("garbled") where that cannot be unpacked or names another
    client; a Fault stays one."""
    if isinstance(reply, Fault):
        return reply
    try:
        answer = unpack(*reply)
    except Exception as error:  # no bytes of one client may end the run
        message = str(error) if isinstance(error, FcitError | ValueError) else repr(error)
        return Fault(client, "garbled", f"not what was asked for: {message}")
    if answer.client != client:
        return Fault(client, "garbled", f"answered as client {answer.client}")
    return answer


def pack_turn(turn: Turn) -> Header:
    """A turn as JSON."""
    return asdict(turn)


def unpack_turn(header: Header) -> Turn:
    """The inverse of `pack_turn`."""
    task = Task(header["task"]["name"], tuple(header["task"]["datasets"]))
    return Turn(header["client"], task, header["stage"], header["round"], header["last"])


def pack_job(job: Job, memory: Weights) -> Frame:
    """A job, and the client's memory where the engine keeps it."""
    header = {"turn": pack_turn(job.turn), "epochs": job.epochs}
    return header, flatten(job.received, memory)


def unpack_job(header: Header, weights: Weights) -> tuple[Job, Weights]:
    """The inverse of `pack_job`."""
    state, memory = split_memory(weights)
    return Job(unpack_turn(header["turn"]), unflatten(state), header["epochs"]), memory


def pack_update(update: Update, memory: Weights) -> Frame:
    """An update, and the client's new memory."""
    header = {"client": update.client, "samples": update.samples, "metrics": dict(update.metrics)}
    return header, flatten(update, memory)


def unpack_update(header: Header, weights: Weights) -> Update:
    """The inverse of `pack_update`, with the memory in the update. Raises KeyError or ValueError for
    anything else."""
    flat, memory = split_memory(weights)
    state = unflatten(flat)
    client, samples = _field(header, "client", int), _field(header, "samples", int)
    metrics = _field(header, "metrics", dict)
    for name in metrics:
        _field(metrics, name, int, float)
    return Update(client, samples, state.adapters, state.extras, metrics, state.optimizer, memory)


def pack_identity(identity: Identity) -> Frame:
    """An identity token."""
    header = {"client": identity.client, "task": identity.task, "samples": identity.samples}
    return header, {"token": identity.token}


def unpack_identity(header: Header, weights: Weights) -> Identity:
    """The inverse of `pack_identity`. Raises KeyError or ValueError for anything else."""
    client, samples = _field(header, "client", int), _field(header, "samples", int)
    return Identity(client, _field(header, "task", str), weights["token"], samples)


def pack_score(score: Score) -> Frame:
    """A client's score."""
    return asdict(score), {}


def unpack_score(header: Header, weights: Weights) -> Score:
    """The inverse of `pack_score`. Raises KeyError or ValueError for anything else."""
    client, count = _field(header, "client", int), _field(header, "count", int)
    return Score(client, _field(header, "dataset", str), _field(header, "total", int, float), count)


def _field(header: Header, name: str, *types: type) -> Any:
    value = header[name]
    if type(value) not in types:  # not isinstance: True is an int
        raise ValueError(f"its {name} is {str(value)[:40]!r}, a {type(value).__name__}")
    return value
