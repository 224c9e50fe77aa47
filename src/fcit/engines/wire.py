"""Jobs and replies as bytes: a JSON header and one safetensors body; nothing else crosses a wire."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from typing import IO, Any

from fcit.types import Identity, Job, Score, State, Task, Turn, Update, Weights
from fcit.weights import flatten, from_bytes, to_bytes, unflatten

Header = dict[str, Any]
MEMORY = "memory/"


def write_frame(stream: IO[bytes], header: Header, weights: Weights | None = None) -> None:
    """Send one message: two lengths, the header, the tensors."""
    head = json.dumps(header).encode()
    body = to_bytes(weights) if weights else b""
    stream.write(struct.pack("<QQ", len(head), len(body)) + head)
    stream.write(body)
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[Header, Weights] | None:
    """Receive one message; None when the other side is gone."""
    lengths = stream.read(16)
    if len(lengths) < 16:
        return None
    head, body = struct.unpack("<QQ", lengths)
    header, data = stream.read(head), stream.read(body)
    if len(header) < head or len(data) < body:
        return None
    return json.loads(header), from_bytes(data) if body else {}


def pack_turn(turn: Turn) -> Header:
    """A turn as JSON."""
    return asdict(turn)


def unpack_turn(header: Header) -> Turn:
    """The inverse of `pack_turn`."""
    task = Task(header["task"]["name"], tuple(header["task"]["datasets"]))
    return Turn(header["client"], task, header["stage"], header["round"], header["last"])


def pack_job(job: Job, memory: Weights) -> tuple[Header, Weights]:
    """A job, and the client's memory where the engine keeps it."""
    kept = {MEMORY + name: value for name, value in memory.items()}
    return {"turn": pack_turn(job.turn), "epochs": job.epochs}, flatten(job.received) | kept


def unpack_job(header: Header, weights: Weights) -> tuple[Job, Weights]:
    """The inverse of `pack_job`."""
    state, memory = _part(weights)
    return Job(unpack_turn(header["turn"]), unflatten(state), header["epochs"]), memory


def pack_update(update: Update, memory: Weights) -> tuple[Header, Weights]:
    """An update, and the client's new memory."""
    kept = {MEMORY + name: value for name, value in memory.items()}
    header = {"client": update.client, "samples": update.samples, "metrics": dict(update.metrics)}
    parts = (update.adapters, update.extras, update.optimiser)
    held = ({name: dict(weights) for name, weights in kind.items()} for kind in parts)
    return header, flatten(State(*held)) | kept


def unpack_update(header: Header, weights: Weights) -> tuple[Update, Weights]:
    """The inverse of `pack_update`."""
    flat, memory = _part(weights)
    state = unflatten(flat)
    client, samples, metrics = header["client"], header["samples"], dict(header["metrics"])
    update = Update(client, samples, state.adapters, state.extras, metrics, state.optimiser)
    return update, memory


def pack_identity(identity: Identity) -> tuple[Header, Weights]:
    """An identity token."""
    header = {"client": identity.client, "task": identity.task, "samples": identity.samples}
    return header, {"token": identity.token}


def unpack_identity(header: Header, weights: Weights) -> Identity:
    """The inverse of `pack_identity`."""
    return Identity(header["client"], header["task"], weights["token"], header["samples"])


def unpack_score(header: Header) -> Score:
    """A client's score. Raises ValueError on what is no score."""
    score = Score(**header)
    if type(score.count) is not int or not isinstance(score.total, int | float):
        raise ValueError(f"{score.total!r} of {score.count!r} is no score")
    return score


def _part(weights: Weights) -> tuple[Weights, Weights]:
    memory = {k[len(MEMORY) :]: v for k, v in weights.items() if k.startswith(MEMORY)}
    return {k: v for k, v in weights.items() if not k.startswith(MEMORY)}, memory
