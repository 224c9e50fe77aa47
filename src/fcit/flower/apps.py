"""The two sides of a run as Flower's apps: what `flwr run` starts on the server and on every node."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid import InMemoryGrid

from fcit.engines.local import LocalEngine
from fcit.engines.node import Place, respond
from fcit.flower import parcels
from fcit.flower.engine import FlowerEngine
from fcit.recipe.config import Config
from fcit.types import FcitError
from fcit.worker.experiment import Experiment

Build = Callable[[Config, int, Path], FlowerEngine]
"""What makes an engine from a configuration, a number of workers and a run's folder."""

MEMORIES = "clients"
"""The folder of a run's folder in which simulated clients keep their memories."""

REGISTERING = 10.0
"""Seconds that a simulation has to register its nodes: a moment's work, begun after the ServerApp."""


def server_app(main: Callable[[Mapping[str, Any], Build], None]) -> ServerApp:
    """The app that a SuperLink runs: `main` gets Flower's run config, and what builds an engine whose
    clients are the SuperLink's nodes."""
    app = ServerApp()

    def serve(grid: Grid, context: Context) -> None:
        def build(config: Config, workers: int, folder: Path) -> FlowerEngine:
            if isinstance(grid, InMemoryGrid):  # a simulation's
                _suffice(grid, config)
            return FlowerEngine(config, grid, LocalEngine(config, workers), folder)

        main(context.run_config, build)

    app.main()(serve)
    return app


def _suffice(grid: Grid, config: Config, patience: float = REGISTERING) -> None:
    """Raise FcitError where a simulation has fewer nodes (2, unless told) than the recipe has clients:
    the run would wait for the others. patience: seconds that they have to come up."""
    clients, end = Experiment(config).training_setting.clients, time.monotonic() + patience
    while (nodes := len(list(grid.get_node_ids()))) < clients:
        if time.monotonic() > end:
            raise FcitError(
                f"the recipe has {clients} clients and Flower's simulation {nodes} nodes; "
                f"give flwr run --federation-config 'num-supernodes={clients}'"
            )
        time.sleep(0.1)


def client_app(run: Path | None = None) -> ClientApp:
    """The app that nodes run. `run` is the run's folder where all clients are on this machine; nodes
    of a deployment say in their own configuration where their data and memories are."""
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        found = respond(*parcels.unpack(message.content), place(context, run))
        return Message(parcels.pack(*found), reply_to=message)

    app.query()(answer)
    app.train()(answer)
    app.evaluate()(answer)
    return app


def place(context: Context, run: Path | None = None) -> Place:
    """Where a node's client is, from the node's configuration: client, data, memory,
    images, and scoring rules.

    Raises FcitError naming the entry that is missing.
    """
    given = context.node_config
    if "client" not in given and "partition-id" in given:
        folder = run or Path(str(context.run_config.get("out") or "")).expanduser()
        if not folder.name:
            raise FcitError("a simulation's run config must name the run's folder: out")
        return Place(int(given["partition-id"]), folder / MEMORIES)
    for key in ("client", "data"):
        if key not in given:
            raise FcitError(f"--node-config: {key} is missing, such as {key}={_EXAMPLES[key]}")
    data = Path(str(given["data"])).expanduser()
    memory = Path(str(given.get("memory") or data.parent / "memory")).expanduser()
    images = str(given.get("images", ""))
    rules = filter(None, str(given.get("rules", "")).split(":"))
    pairs = tuple((name, file) for name, _, file in (one.partition("=") for one in rules))
    return Place(int(given["client"]), memory, data, tuple(filter(None, images.split(":"))), pairs)


_EXAMPLES = {"client": "3", "data": '"/srv/fcit/data"'}
