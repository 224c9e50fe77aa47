"""Engines: whatever brings jobs to clients and answers back, on this machine or on many."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fcit.config import Config
from fcit.types import FcitError, Weights

if TYPE_CHECKING:
    from fcit.engines.flower import FlowerEngine
    from fcit.engines.local import LocalEngine

    AnyEngine = LocalEngine | FlowerEngine


QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""Flower reports every run to its makers, and asks for newer versions, unless told otherwise."""


def build(config: Config, workers: int, folder: Path) -> AnyEngine:
    """The engine a recipe names: local, or Flower's simulation of all clients on this machine.

    workers: clients that train at a time. folder: the run's; simulated clients keep their memories
    in it. Raises FcitError where the package of an engine is not installed.
    """
    if config.federation.engine == "local":
        from fcit.engines.local import LocalEngine

        return LocalEngine(config, workers)
    hush()
    try:
        from fcit.engines.simulation import simulate
    except ImportError as error:
        if not str(error.name).startswith("flwr"):
            raise
        raise FcitError(
            "federation.engine: flower needs Flower, which is not installed; "
            "pip install 'fcit[flower]', or use local"
        ) from None
    return simulate(config, workers, folder)


def hush() -> None:
    """Let Flower tell nobody of its runs, and log errors only; before flwr is imported."""
    os.environ |= QUIET
    os.environ.setdefault("FLWR_LOG_LEVEL", "ERROR")


def check_memory(config: Config, memory: Mapping[int, Weights]) -> None:
    """Raise FcitError where a resumed run's clients keep their memories under another engine.

    Under Flower a client keeps its memory itself, and the run only which of its turns left it.
    """
    for kept in memory.values():
        theirs = "flower" if kept.keys() == {"turn"} else "local"
        if kept and theirs != config.federation.engine:
            raise FcitError(
                f"federation.engine: the clients' memories of this run are with the {theirs} engine; "
                f"go on with federation.engine={theirs}"
            )
