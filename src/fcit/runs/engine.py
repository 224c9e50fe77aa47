"""The engine that a recipe names, and the folders of a deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fcit.aggregation.privacy import secret_noise
from fcit.flower import hush
from fcit.recipe.config import Config, build_method
from fcit.types import FcitError, Weights
from fcit.watch import Watch

if TYPE_CHECKING:
    from fcit.engines.local import LocalEngine
    from fcit.flower.engine import FlowerEngine

    AnyEngine = LocalEngine | FlowerEngine


Build = Callable[[Config, int, Path], "AnyEngine"]
"""What makes a run's engine, from its configuration, its number of workers and its folder."""


def build(config: Config, workers: int, folder: Path) -> AnyEngine:
    """The engine a recipe names: local, or Flower's simulation of all clients on this machine.

    workers: clients that train at a time. folder: the run's; simulated clients keep their memories
    in it. Raises FcitError where Flower is not installed.
    """
    if config.federation.engine == "local":
        from fcit.engines.local import LocalEngine

        return LocalEngine(config, workers)
    hush()
    with _needs_flower("federation.engine: flower"):
        from fcit.flower.simulation import simulate
    return simulate(config, workers, folder)


def deployment(
    config: Config, out: Path, hosts: Sequence[str], split: bool, install: str, watch: Watch
) -> None:
    """Write the folders of a federation across machines (see `deploy.write`); with `split`, every
    client's share of the recipe's data too.

    Raises FcitError where `out` is not empty, a method is not federated, noise would come from the
    recipe's seed, or Flower is not installed.
    """
    with _needs_flower("fcit deploy"):
        from fcit.flower import deploy
    from fcit.flower import shares

    secret_noise(config.privacy.build())
    if build_method(config).centralised:
        raise FcitError(f"method.name: {config.method.name} is not federated: nothing to deploy")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FcitError(f"{out}: is there already and not empty; choose another --out")
    clients = config.federation.clients
    deploy.write(out, hosts, config, install)
    if split:
        shares.split(config, [out / f"client-{one}" / "data" for one in range(clients)], watch)


@contextmanager
def _needs_flower(what: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        if not str(error.name).startswith(("flwr", "cryptography")):
            raise
        raise FcitError(
            f"{what} needs Flower, which is not installed: pip install 'fcit[flower]'"
        ) from None


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
