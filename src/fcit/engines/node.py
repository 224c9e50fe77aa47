"""A client's side of a federation: it answers one message on data and memory that stay with it.

Nothing here knows Flower; `parcels` turns its messages into what `respond` takes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from fcit.engines import wire
from fcit.recipe.config import Config, validate
from fcit.types import FcitError, Weights
from fcit.weights import load, save, unflatten
from fcit.worker.model import ModelWorker

Reply = tuple[wire.Header, Weights]

Version = tuple[int, int]
"""Which of a client's memories: the stage and round (from 0) of the turn that left it."""


@dataclass(frozen=True)
class Place:
    """Where a client is: its number, the folder of its memories, and its own data folder (None: its
    share of the recipe's, as all clients of a simulation have it)."""

    client: int
    memory: Path
    data: Path | None = None
    images: tuple[str, ...] = ()
    rules: tuple[tuple[str, str], ...] = ()
    """Files of scoring rules by dataset, for what the recipe scores by a rule of its own."""


def respond(
    header: wire.Header, weights: Weights, place: Place, site: ModelWorker | None = None
) -> Reply:
    """Answer one message; what goes wrong becomes an answer too.

    site: where it is there already (else one is made of the recipe in the message, and kept).

    A client with data of its own says no more of an error than its kind, as messages name files and
    samples; the whole of it is for its own log. A defect of ours goes to the log with its traceback.
    """
    try:
        if header["do"] == "hello":
            return {"client": place.client, "fcit": importlib.metadata.version("fcit")}, {}
        if site is None:
            site = _site(json.dumps(header["config"], sort_keys=True), place)
        if header["do"] == "identify":
            return wire.pack_identity(site.identify(wire.unpack_turn(header["turn"])))
        if header["do"] == "train":
            return _train(site, header, weights, place)
        if header["do"] == "score":
            site.place(unflatten(weights))
            return wire.pack_score(site.score(place.client, header["dataset"]))
        raise ValueError(f"unknown request {header['do']}")
    except Exception as error:
        named, ours = str(error), not isinstance(error, FcitError)
        if ours or place.data is not None:
            print(traceback.format_exc() if ours else named, file=sys.stderr, flush=True)
        if place.data is None:
            return {"error": f"{type(error).__name__}: {named}" if ours else named}, {}
        return {"error": f"{type(error).__name__}; the client's own log says more"}, {}


def _train(site: ModelWorker, header: wire.Header, weights: Weights, place: Place) -> Reply:
    job, _ = wire.unpack_job(header, weights)
    if job.turn.client != place.client:
        raise FcitError(f"a job for client {job.turn.client} came to client {place.client}")
    folder = place.memory / header["run"] / f"client-{place.client}"
    since: Version | None = tuple(header["since"]) if header["since"] else None
    update, memory = site.train(job, recall(folder, since))
    reply, tensors = wire.pack_update(update, {})
    return reply | {"kept": keep(folder, since, (job.turn.stage, job.turn.round), memory)}, tensors


def recall(folder: Path, version: Version | None) -> Weights:
    """The memory that a turn left in a client's folder; None: nothing was kept yet.

    Raises FcitError where it is not there: another would change the run's numbers.
    """
    if version is None:
        return {}
    path = folder / _file(version)
    if not path.is_file():
        raise FcitError(
            f"{path}: the client's memory is missing; bring the file back, or begin a new run"
        )
    return load(path)


def keep(folder: Path, since: Version | None, now: Version, memory: Weights) -> bool:
    """Keep a turn's memory beside the one it began from, and drop all others; say if there was any.

    The server may be cut off before it commits the turn; it then asks for the turn again, from the
    memory before it. So both stay.
    """
    if memory:
        save(folder / _file(now), memory)
    staying = {_file(one) for one in (since, now) if one}
    for old in folder.glob("*.safetensors"):
        if old.name not in staying:
            old.unlink()
    return bool(memory)


def _file(version: Version) -> str:
    return f"stage{version[0]}-round{version[1]}.safetensors"


_resident: dict[str, ModelWorker] = {}


def _site(recipe: str, place: Place) -> ModelWorker:
    """This process's site for a recipe: made once, so that a base model is loaded once a process."""
    key = hashlib.sha256(f"{recipe}{place.data}{place.images}{place.rules}".encode()).hexdigest()
    if key not in _resident:
        _resident.clear()  # one base model at a time
        config: Config = validate(json.loads(recipe), "the server's recipe")
        _resident[key] = ModelWorker(config, place.data, place.images, dict(place.rules))
    return _resident[key]
