"""The engine that a recipe names, how many workers it gets, and the folders of a deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fcit.aggregation.privacy import secret_noise
from fcit.files import folder_aside, private
from fcit.flower import NAME_FILE, hush
from fcit.methods import named
from fcit.recipe.config import Config
from fcit.recipe.paths import require_installed
from fcit.rounds.runfolder import RunFolder
from fcit.types import FcitError, Weights, extra
from fcit.watch import Watch

if TYPE_CHECKING:
    from fcit.engines.local import LocalEngine
    from fcit.flower.engine import FlowerEngine

    AnyEngine = LocalEngine | FlowerEngine


Build = Callable[[Config, int, Path], "AnyEngine"]
"""Makes a run's engine from its configuration, its number of workers and its folder."""


SUPERLINK = "superlink"
"""The `engine` in a run's `[versions]` if `flwr run` began it; other runs have none."""


def workers(config: Config) -> int:
    """How many worker processes a run uses: the recipe's number, else one per GPU or per core.

    Raises FcitError for more than can be of use.
    """
    from fcit.engines.workers import cores, gpus_to_share
    from fcit.models.device import choose

    useful = max(config.federation.per_round, 4)
    if (asked := config.federation.workers) > max(useful, cores()):
        raise FcitError(
            f"federation.workers: {asked} processes for {config.federation.per_round} clients per round "
            f"on {cores()} cores; use at most {max(useful, cores())}, or 0 to let fcit choose"
        )
    if asked:
        return asked
    if gpus := gpus_to_share(config):
        return min(useful, len(gpus))
    device = config.model.device
    if (choose("auto", "auto")[0] if device == "auto" else device) != "cpu":
        return 1
    return max(1, min(useful, cores() // config.training.threads))


def on_device(config: Config, device: str) -> Config:
    """A configuration whose model is on this device ("": the recipe's), not spread over several."""
    moved = replace(config.model, device=device, device_map="")
    return replace(config, model=moved) if device else config


def build(config: Config, workers: int, folder: Path) -> AnyEngine:
    """The engine that a recipe names: local, or Flower's simulation of all clients on this machine.

    folder: the run's; simulated clients keep their memories in it. Raises FcitError if Flower is needed
    and not installed.
    """
    if config.federation.engine == "local":
        from fcit.engines.local import LocalEngine

        return LocalEngine(config, workers)
    hush()
    with _needs_flower("federation.engine: flower"):
        from fcit.flower.simulation import simulate
    return simulate(config, workers, folder)


def check_here(folder: RunFolder) -> None:
    """Raise FcitError where a SuperLink began a run: its clients have data of their own, and here all of
    them would train on the server's."""
    marked = folder.table().get("versions", {}).get("engine") == SUPERLINK
    # Runs of earlier versions have no mark. A deployment's server does not know its clients' shares.
    shares_known = folder.partition.is_file() or not (folder.path / NAME_FILE).is_file()
    if marked or (folder.begun() and not shares_known):
        raise FcitError(
            f"{folder.path}: a SuperLink's clients train this run, on their own data; continue it with "
            "./run on the server, or without some clients with ./run federation.min_clients=N"
        )


def deployment(
    config: Config, out: Path, hosts: Sequence[str], split: bool, install: str, watch: Watch
) -> None:
    """Write the folders of a federation across machines (see `deploy.write`); with `split`, also every
    client's share of the recipe's data.

    Raises FcitError if `out` is not empty, the method is not federated or is a file of one's own, privacy
    noise would come from the recipe's seed, or Flower is not installed.
    """
    with _needs_flower("fcit deploy"):
        from fcit.flower import deploy
    from fcit.flower import shares

    secret_noise(config.privacy)
    require_installed(named(config.method)["name"], "fcit deploy")
    if not config.method.federated:
        raise FcitError(f"method.name: {config.method.name} is not federated: nothing to deploy")
    clients = range(config.federation.clients)
    with private(out.absolute().parent), folder_aside(out) as folder:
        deploy.write(folder, hosts, config, install)
        if split:
            shares.split(config, [folder / f"client-{k}" / "data" for k in clients], watch)


@contextmanager
def _needs_flower(feature: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        if not str(error.name).startswith(("flwr", "cryptography")):
            raise
        raise FcitError(
            f"{feature} needs Flower, which is not installed: {extra('flower')}"
        ) from None


def check_memory(config: Config, memory: Mapping[int, Weights]) -> None:
    """Raise FcitError if a resumed run's client memories were kept by another engine.

    Flower's clients keep their memories themselves; the run only knows which turn wrote them.
    """
    for kept in memory.values():
        engine = "flower" if kept.keys() == {"turn"} else "local"
        if kept and engine != config.federation.engine:
            raise FcitError(
                f"federation.engine: the clients' memories of this run are with the {engine} engine; "
                f"continue with federation.engine={engine}"
            )
