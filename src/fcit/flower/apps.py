"""The two sides of a run as Flower apps, which `flwr run` starts on the server and on every node."""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid import InMemoryGrid

from fcit.aggregation.privacy import Privacy
from fcit.engines.local import LocalEngine
from fcit.engines.node import LocalClient, respond
from fcit.files import home
from fcit.flower.engine import FlowerEngine
from fcit.flower.messages import pack, unpack
from fcit.flower.status import Status
from fcit.recipe.config import Config, checked
from fcit.recipe.sections import DataSection
from fcit.types import FcitError, first_line
from fcit.worker.experiment import Experiment

REQUIRED = {"client": "3", "data": '"/srv/fcit/client-3/data"'}
"""What a node's configuration must name, with examples."""

OPTIONAL = "memory", "images", "rules"
"""What it may name; of images and rules several, with a colon between two."""

FLOOR = "clip_norm", "noise_multiplier", "token_noise"
"""Its floor of privacy; the names are those of a recipe's `[privacy]` section."""

MEMORIES = "clients"
"""The folder, below a run's own, in which simulated clients keep their memories."""

PATIENCE = 10.0
"""Seconds that a simulation has to register its nodes, which it begins after the ServerApp."""


Main = Callable[[Mapping[str, Any], Callable[..., FlowerEngine], bool], None]


def server_app(main: Main) -> ServerApp:
    """The app that a SuperLink runs: `main` gets Flower's run config, a function that builds an engine
    whose clients are the SuperLink's nodes (see `runs.engine.Build`), and whether these have data of
    their own, as in a deployment."""
    app = ServerApp()

    def serve(grid: Grid, context: Context) -> None:
        simulated = isinstance(grid, InMemoryGrid)

        def build(config: Config, workers: int, folder: Path) -> FlowerEngine:
            status = None
            if simulated:
                wait_for_nodes(grid, config)
            else:
                status = Status(folder, Experiment(config).plan, partial(print, flush=True))
            own = LocalEngine(config, workers)
            return FlowerEngine(config, grid, own, folder, status=status)

        logging.getLogger("flwr").addFilter(shorten_user_errors)
        main(context.run_config, build, not simulated)

    app.main()(serve)
    return app


def shorten_user_errors(record: logging.LogRecord) -> bool:
    """Log an error that the operator can mend, such as a full disk, in one line, without a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, FcitError | OSError):
        what = str(error) if isinstance(error, FcitError) else first_line(error)
        record.msg, record.args, record.exc_info = f"error: {what}", (), None
    return True


def wait_for_nodes(grid: Grid, config: Config, patience: float = PATIENCE) -> None:
    """Wait until a simulation has a node for every client of the recipe.

    Raises FcitError where some are missing after `patience` seconds (Flower's default is 2 nodes): the
    run would wait for them.
    """
    clients, end = Experiment(config).training_setting.clients, time.monotonic() + patience
    while (nodes := len(list(grid.get_node_ids()))) < clients:
        if time.monotonic() > end:
            raise FcitError(
                f"the recipe has {clients} clients and Flower's simulation {nodes} nodes; "
                f"give flwr run --federation-config 'num-supernodes={clients}'"
            )
        time.sleep(0.1)


def client_app(run: Path | None = None) -> ClientApp:
    """The app that nodes run. run: the run's folder, where all clients are on this machine; nodes of a
    deployment name the folders of their data and memories in their own configuration."""
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        logging.getLogger("flwr").addFilter(shorten_user_errors)
        reply = respond(*unpack(message.content), local_client(context, run))
        return Message(pack(*reply), reply_to=message)

    app.query()(answer)
    app.train()(answer)
    app.evaluate()(answer)
    return app


def local_client(context: Context, run: Path | None = None) -> LocalClient:
    """The client that a node stands for: what its configuration names, or in a simulation its number."""
    node = context.node_config
    if "client" in node or "partition-id" not in node:
        return own_client(node)
    folder = run or home(str(context.run_config.get("out") or ""))
    if not folder.name:
        raise FcitError("the run config of a simulation must name the run's folder: out")
    return LocalClient(int(node["partition-id"]), folder / MEMORIES)


def own_client(node: Mapping[str, Any]) -> LocalClient:
    """The client of a deployment: its number, its data and memory, and the clipping and noise that it
    applies at least. Raises FcitError naming the entry at fault."""
    if unknown := sorted(node.keys() - {*REQUIRED, *OPTIONAL, *FLOOR}):
        known = ", ".join((*REQUIRED, *OPTIONAL, *FLOOR))
        raise FcitError(f"--node-config: there is no {unknown[0]!r}; choose from {known}")
    for key, example in REQUIRED.items():
        if key not in node:
            raise FcitError(f"--node-config: {key} is missing, such as {key}={example}")
    number = node["client"]
    if type(number) is not int or number < 0:
        raise FcitError(f"--node-config: client is {number!r}; it must be a number from 0 on")
    data = home(str(node["data"]))
    memory = home(str(node.get("memory") or data.parent / "memory"))
    images, rules = (
        [text for text in str(node.get(key, "")).split(":") if text] for key in ("images", "rules")
    )
    pairs = {name: file for name, _, file in (rule.partition("=") for rule in rules)}
    if odd := next((name for name, file in pairs.items() if not file), None):
        raise FcitError(f"--node-config: rules: {odd!r} is not DATASET=/path/to/rule.py")
    own = DataSection(root=str(data), images=tuple(images), rules=pairs)
    floor = {key: node[key] for key in FLOOR if key in node}
    return LocalClient(
        number, memory, own, checked(Privacy, floor | {"seeded_noise": False}, "--node-config")
    )
