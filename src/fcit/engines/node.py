"""A client's side of a federation: it answers messages from data and memory that stay with it.

Nothing here knows Flower; `flower.messages` turns Flower's messages into what `respond` takes. A server
is not trusted: names in its messages are never paths, only the recipe's models are opened here, no file
that it names is run, and a client's own minimum of privacy holds whatever it says.
"""

import json
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

import fcit
from fcit.aggregation.privacy import Privacy, secret_noise
from fcit.benchmark.missing import require_images
from fcit.benchmark.schedule import tasks_of
from fcit.engines import wire
from fcit.files import private, reading, written_aside
from fcit.recipe.config import validate
from fcit.recipe.sections import DataSection
from fcit.rounds.client import Data, told_of_cuts
from fcit.rounds.records import compare, sha256
from fcit.types import FcitError, Turn, Weights
from fcit.weights import from_bytes, to_bytes, unflatten
from fcit.worker.cache import code
from fcit.worker.experiment import Experiment
from fcit.worker.model import NO_FLOOR, ModelWorker

Version = tuple[int, int]
"""Which of a client's memories: the stage and round (from 0) of the turn that left it."""


@dataclass(frozen=True)
class LocalClient:
    """The client that a node stands for."""

    number: int
    memory: Path
    """The folder of its memories."""
    own: DataSection | None = None
    """Its own data; None: its share of the recipe's data, as in a simulation."""
    floor: Privacy = NO_FLOOR
    """The clipping and noise that it applies at least, whatever the recipe says."""


def respond(
    header: wire.Header, weights: Weights, client: LocalClient, worker: ModelWorker | None = None
) -> wire.Frame:
    """Answer one message; an error becomes an answer too.

    worker: the one to use; by default one is made from the recipe in the message, and kept.

    Error messages name files and samples, so a client with data of its own answers only the error's type,
    and writes the whole message to its own log. The log also gets the traceback of a bug.
    """
    try:
        wire.check_names(header)
        if header["do"] == "hello":
            return _hello(header, client), {}
        if "turn" in header and (number := header["turn"]["client"]) != client.number:
            raise FcitError(f"a turn of client {number} came to client {client.number}")
        if worker is None:
            worker = _model_worker(json.dumps(header["config"], sort_keys=True), client)
        if header["do"] == "identify":
            return wire.pack_identity(worker.identify(wire.unpack_turn(header["turn"])))
        if header["do"] == "train":
            with private(client.memory):
                return _train(worker, header, weights, client)
        if header["do"] == "score":
            worker.place(unflatten(weights))
            return asdict(worker.score(client.number, header["dataset"])), {}
        raise ValueError(f"unknown request {header['do']}")
    except Exception as error:
        message = _noted(error, client)
        return {"error": message}, {}


def _noted(error: Exception, client: LocalClient) -> str:
    """What the server is told of an error."""
    kind, message = type(error).__name__, str(error)
    bug = not isinstance(error, FcitError)
    if bug or client.own:
        print(traceback.format_exc() if bug else message, file=sys.stderr, flush=True)
    if client.own:
        return f"{kind}; see the client's own log"
    return f"{kind}: {message}" if bug else message


def _hello(header: wire.Header, client: LocalClient) -> wire.Header:
    """Which client this is, and whether it has what the run's stages will ask it for."""
    answer = {"client": client.number, "fcit": fcit.__version__, "code": code()}
    if not client.own:
        return answer
    try:
        worker = _model_worker(json.dumps(header["config"], sort_keys=True), client)
        data = check_data(worker.experiment, client.number)
        samples = [sample for part in data for sample in part.samples]
        if told := told_of_cuts(worker.check_lengths(samples, loaded=False), len(samples)):
            print(told, file=sys.stderr, flush=True)  # the server is not told of a client's samples
    except Exception as error:
        return answer | {"unready": _noted(error, client)}
    return answer


def check_data(experiment: Experiment, client: int) -> list[Data]:
    """A client's own training samples of every task that it will train on. Raises FcitError where it
    lacks anything for its turns, in all stages."""
    if client >= (clients := experiment.setting.clients):
        raise FcitError(f"client {client}: the recipe has clients 0 to {clients - 1}")
    tasks, tested = tasks_of(experiment.plan, client), list[Data]()
    trained = [experiment.data(Turn(client, task, 0, 0)) for task in tasks]
    if experiment.config.evaluation.where == "clients":
        names = experiment.setting.datasets
        tested = [experiment.data_of(experiment.test_share(name, client)) for name in names]
    for part in [*trained, *tested]:
        require_images(part.samples, part.images)
    return trained


def _train(
    worker: ModelWorker, header: wire.Header, weights: Weights, client: LocalClient
) -> wire.Frame:
    job, _ = wire.unpack_job(header, weights)
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
    path = next(folder.glob(_files(version)), folder / _files(version))
    if not path.is_file():
        raise FcitError(f"{path}: the client's memory is missing; restore it, or begin a new run")
    with reading(path):
        data = path.read_bytes()
    compare(path, path.name, _file(version, data))
    return from_bytes(data)


def save_memory(folder: Path, since: Version | None, now: Version, memory: Weights) -> bool:
    """Save a turn's memory beside the one it began from, and delete all others; whether there was any.

    Both stay because the server may be killed before it commits the turn. It then asks for the turn
    again, from the memory before it.
    """
    current = set(folder.glob(_files(since))) if since else set[Path]()
    if memory:
        data = to_bytes(memory)
        current.add(path := folder / _file(now, data))
        with written_aside(path) as aside:
            aside.write_bytes(data)
    for old in set(folder.glob("*.safetensors")) - current:
        old.unlink()
    return bool(memory)


def _files(version: Version) -> str:
    """The pattern of the name of a version's file."""
    stage, number = version
    return f"stage{stage:d}-round{number:d}-*.safetensors"


def _file(version: Version, data: bytes) -> str:
    """The name of a version's file, with a digest of its content."""
    return _files(version).replace("*", sha256(data)[:12])


_loaded: dict[tuple[str, str], ModelWorker] = {}


def _model_worker(recipe: str, client: LocalClient) -> ModelWorker:
    """This process's worker for a recipe, made once, so that the base model is loaded once."""
    key = recipe, repr(client)
    if key not in _loaded:
        _loaded.clear()  # one base model at a time
        config = validate(json.loads(recipe), "the server's recipe", foreign=client.own is not None)
        if client.own:
            secret_noise(config.privacy)
        _loaded[key] = ModelWorker(config, client.own, client.floor)
    return _loaded[key]
