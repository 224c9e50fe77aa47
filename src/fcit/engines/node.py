"""A client's side of a federation: it answers messages from data and memory that stay with it.

Nothing here knows Flower; `flower.messages` turns Flower's messages into what `respond` takes.
"""

import hashlib
import importlib.metadata
import json
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from fcit.engines import wire
from fcit.recipe.config import validate
from fcit.types import FcitError, Weights
from fcit.weights import load, save, unflatten
from fcit.worker.model import ModelWorker

Version = tuple[int, int]
"""Which of a client's memories: the stage and round (from 0) of the turn that left it."""


@dataclass(frozen=True)
class LocalClient:
    """The client that a node stands for."""

    number: int
    memory: Path
    """The folder of its memories."""
    data: Path | None = None
    """Its own data folder; None: its share of the recipe's data, as in a simulation."""
    images: tuple[str, ...] = ()
    rules: tuple[tuple[str, str], ...] = ()
    """Files of scoring rules by dataset, for what the recipe scores by a rule of its own."""


def respond(
    header: wire.Header, weights: Weights, client: LocalClient, worker: ModelWorker | None = None
) -> wire.Frame:
    """Answer one message; an error becomes an answer too.

    worker: the one to use; by default one is made from the recipe in the message, and kept.

    Error messages name files and samples, so a client with data of its own answers only the error's type,
    and writes the whole message to its own log. The log also gets the traceback of a bug.
    """
    try:
        if header["do"] == "hello":
            return {"client": client.number, "fcit": importlib.metadata.version("fcit")}, {}
        if worker is None:
            recipe = json.dumps(header["config"], sort_keys=True)
            worker = _model_worker(recipe, client)
        if header["do"] == "identify":
            return wire.pack_identity(worker.identify(wire.unpack_turn(header["turn"])))
        if header["do"] == "train":
            return _train(worker, header, weights, client)
        if header["do"] == "score":
            worker.place(unflatten(weights))
            return wire.pack_score(worker.score(client.number, header["dataset"]))
        raise ValueError(f"unknown request {header['do']}")
    except Exception as error:
        kind, message = type(error).__name__, str(error)
        bug = not isinstance(error, FcitError)
        if bug or client.data is not None:
            print(traceback.format_exc() if bug else message, file=sys.stderr, flush=True)
        if client.data is not None:
            return {"error": f"{kind}; see the client's own log"}, {}
        return {"error": f"{kind}: {message}" if bug else message}, {}


def _train(
    worker: ModelWorker, header: wire.Header, weights: Weights, client: LocalClient
) -> wire.Frame:
    job, _ = wire.unpack_job(header, weights)
    if job.turn.client != client.number:
        raise FcitError(f"a job for client {job.turn.client} came to client {client.number}")
    folder = client.memory / header["run"] / f"client-{client.number}"
    since: Version | None = tuple(header["since"]) if header["since"] else None
    update, memory = worker.train(job, load_memory(folder, since))
    reply, tensors = wire.pack_update(update, {})
    kept = save_memory(folder, since, (job.turn.stage, job.turn.round), memory)
    return reply | {"kept": kept}, tensors


def load_memory(folder: Path, version: Version | None) -> Weights:
    """The memory that a turn left in a client's folder; None: there is none yet.

    Raises FcitError where the file is missing: without it the run would have other numbers.
    """
    if version is None:
        return {}
    path = folder / _file(version)
    if not path.is_file():
        raise FcitError(f"{path}: the client's memory is missing; restore it, or begin a new run")
    return load(path)


def save_memory(folder: Path, since: Version | None, now: Version, memory: Weights) -> bool:
    """Save a turn's memory beside the one it began from, and delete all others; whether there was any.

    Both stay because the server may be killed before it commits the turn. It then asks for the turn
    again, from the memory before it.
    """
    if memory:
        save(folder / _file(now), memory)
    current = {_file(version) for version in (since, now) if version}
    for old in folder.glob("*.safetensors"):
        if old.name not in current:
            old.unlink()
    return bool(memory)


def _file(version: Version) -> str:
    return f"stage{version[0]}-round{version[1]}.safetensors"


_loaded: dict[str, ModelWorker] = {}


def _model_worker(recipe: str, client: LocalClient) -> ModelWorker:
    """This process's worker for a recipe, made once, so that the base model is loaded once."""
    key = hashlib.sha256(f"{recipe}{client.data}{client.images}{client.rules}".encode()).hexdigest()
    if key not in _loaded:
        _loaded.clear()  # one base model at a time
        config = validate(json.loads(recipe), "the server's recipe")
        _loaded[key] = ModelWorker(config, client.data, client.images, dict(client.rules))
    return _loaded[key]
