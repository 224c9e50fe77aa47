"""The two sides of a run as Flower apps, which `flwr run` starts on the server and on every node."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid import InMemoryGrid

from fcit.engines.local import LocalEngine
from fcit.engines.node import LocalClient, respond
from fcit.flower.engine import FlowerEngine
from fcit.flower.messages import pack, unpack
from fcit.recipe.config import Config
from fcit.types import FcitError
from fcit.worker.experiment import Experiment

Build = Callable[[Config, int, Path], FlowerEngine]
"""Makes an engine from a configuration, a number of workers and a run's folder."""

MEMORIES = "clients"
"""The folder, below a run's own, in which simulated clients keep their memories."""

PATIENCE = 10.0
"""Seconds that a simulation has to register its nodes, which it begins after the ServerApp."""


def server_app(main: Callable[[Mapping[str, Any], Build], None]) -> ServerApp:
    """The app that a SuperLink runs: `main` gets Flower's run config, and a function that builds an
    engine whose clients are the SuperLink's nodes."""
    app = ServerApp()

    def serve(grid: Grid, context: Context) -> None:
        def build(config: Config, workers: int, folder: Path) -> FlowerEngine:
            if isinstance(grid, InMemoryGrid):  # of a simulation
                wait_for_nodes(grid, config)
            return FlowerEngine(config, grid, LocalEngine(config, workers), folder)

        main(context.run_config, build)

    app.main()(serve)
    return app


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
        reply = respond(*unpack(message.content), local_client(context, run))
        return Message(pack(*reply), reply_to=message)

    app.query()(answer)
    app.train()(answer)
    app.evaluate()(answer)
    return app


def local_client(context: Context, run: Path | None = None) -> LocalClient:
    """The client that a node's configuration names: client, data, memory, images, and scoring rules.

    Raises FcitError naming the entry that is missing.
    """
    node = context.node_config
    if "client" not in node and "partition-id" in node:
        folder = run or Path(str(context.run_config.get("out") or "")).expanduser()
        if not folder.name:
            raise FcitError("the run config of a simulation must name the run's folder: out")
        return LocalClient(int(node["partition-id"]), folder / MEMORIES)
    for key, example in (("client", "3"), ("data", '"/srv/fcit/data"')):
        if key not in node:
            raise FcitError(f"--node-config: {key} is missing, such as {key}={example}")
    data = Path(str(node["data"])).expanduser()
    memory = Path(str(node.get("memory") or data.parent / "memory")).expanduser()
    images, rules = (
        [text for text in str(node.get(key, "")).split(":") if text] for key in ("images", "rules")
    )
    pairs = tuple((name, file) for name, _, file in (rule.partition("=") for rule in rules))
    return LocalClient(int(node["client"]), memory, data, tuple(images), pairs)
