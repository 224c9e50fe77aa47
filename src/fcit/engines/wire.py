"""Jobs and replies as bytes: a JSON header and a safetensors body; nothing else crosses a wire.

Neither side trusts the other. Clients write the headers of replies: `unpack_reply` turns any error in one
into a Fault. A server writes the headers of requests: `check_names` refuses a text that could be a path.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import IO, Any, TypeVar

from fcit.files import is_plain_name
from fcit.types import (
    Fault,
    FcitError,
    Identity,
    Job,
    Score,
    Task,
    Turn,
    Update,
    Weights,
    one_line,
)
from fcit.weights import MEMORY, flatten, from_bytes, split_prefix, to_bytes, unflatten

Header = dict[str, Any]
Frame = tuple[Header, Weights]
"""One message: its header, and its tensors."""

Request = tuple[int, Header, Weights]
"""The client that is asked, and the message to it."""

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


def check_names(value: Any, key: str = "its message") -> None:
    """Raise FcitError for a text in a server's header that is not one plain name: a client makes file
    names of them. The recipe (`config`) has checks of its own."""
    if isinstance(value, str) and not is_plain_name(value):
        raise FcitError(f"the server's {key} is {one_line(value)!r}: must be one plain name")
    if isinstance(value, Mapping):
        for name, part in value.items():
            if name != "config":
                check_names(part, name)
    elif isinstance(value, list):
        for part in value:
            check_names(part, key)


def ask_identity(turn: Turn) -> Request:
    """The request for a client's identity token."""
    return turn.client, {"do": "identify", "turn": asdict(turn)}, {}


def ask_score(client: int, dataset: str) -> Request:
    """The request for a client's score of the placed state on its own test samples."""
    return client, {"do": "score", "client": client, "dataset": dataset}, {}


def unpack_turn(header: Header) -> Turn:
    """A turn from JSON. Raises KeyError or ValueError for anything else."""
    task = _field(header, "task", dict)
    datasets = _field(task, "datasets", list, tuple)
    client, stage, number = (_field(header, key, int) for key in ("client", "stage", "round"))
    last = _field(header, "last", bool)
    return Turn(client, Task(_field(task, "name", str), tuple(datasets)), stage, number, last)


def pack_job(job: Job, memory: Weights) -> Frame:
    """A job, and the client's memory where the engine keeps it."""
    header = {"do": "train", "turn": asdict(job.turn), "epochs": job.epochs}
    return header, flatten(job.received, memory)


def unpack_job(header: Header, weights: Weights) -> tuple[Job, Weights]:
    """The inverse of `pack_job`."""
    state, memory = split_prefix(weights, MEMORY)
    return Job(unpack_turn(header["turn"]), unflatten(state), header["epochs"]), memory


def pack_update(update: Update, memory: Weights) -> Frame:
    """An update, and the client's new memory."""
    header = {"client": update.client, "samples": update.samples, "metrics": dict(update.metrics)}
    return header, flatten(update, memory)


def unpack_update(header: Header, weights: Weights) -> Update:
    """The inverse of `pack_update`, with the memory in the update. Raises KeyError or ValueError for
    anything else."""
    flat, memory = split_prefix(weights, MEMORY)
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


def unpack_score(header: Header, weights: Weights) -> Score:
    """A score from its fields as JSON. Raises KeyError or ValueError for anything else."""
    client, count = _field(header, "client", int), _field(header, "count", int)
    return Score(client, _field(header, "dataset", str), _field(header, "total", int, float), count)


def _field(header: Header, name: str, *types: type) -> Any:
    value = header[name]
    if type(value) not in types:  # not isinstance: True is an int
        raise ValueError(f"its {name} is {str(value)[:40]!r}, a {type(value).__name__}")
    return value
