"""The experiment trackers that a run reports to, beside its own folder.

They are accelerate's, and they only watch: a run keeps all of its results in its folder, and a tracker
that fails is let go. Nothing leaves the machine unless the user's environment says where to.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcit.files import read_json, write_json
from fcit.recipe.keys import flat
from fcit.recipe.sections import TrackingSection
from fcit.types import FcitError, extra, first_line

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

Log = Callable[[Mapping[str, float], int], None]
"""Takes numbers by name, and the global round number that they belong to."""

QUIET = {
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""Read by the packages as they are imported: no telemetry to their makers, no talk."""


MLFLOW = "MLFLOW_TRACKING_URI"
"""Names MLflow's server or database."""


def require(section: TrackingSection) -> None:
    """Raise FcitError where a package that the section needs is not installed."""
    needed = ("accelerate", *section.to) if section.to else ()
    if lacking := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise FcitError(
            f"tracking.to: {' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed: "
            f"{extra('tracking')}, or leave the tracker out"
        )


@contextmanager
def tracking(
    section: TrackingSection, folder: Path, table: Mapping[str, Any], say: Callable[[str], None]
) -> Iterator[Log]:
    """While it is open, what is logged goes to every tracker of the section.

    `folder` is the run's: files go into its `tracking/`, where `begun.json` keeps which trackers know
    this run under which id, so that a resumed run goes on in them. A tracker gets the configuration
    `table` once. `say` hears of a tracker that failed; the run does without it from there on.
    Raises FcitError when one does not start.
    """
    running: dict[str, GeneralTracker] = {}
    server = os.environ.get(MLFLOW)

    def attempt(name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # of another's code and server: no reason to lose a run
            running.pop(name)
            say(f"tracking: {name} failed, and the run goes on without it: {first_line(error)}")

    def log(values: Mapping[str, float], step: int) -> None:
        named = {re.sub(r"[^\w\-./ ]", "_", name): value for name, value in values.items()}
        for name, one in list(running.items()):
            if name == "wandb":  # it keeps a numbered step back until the next one comes
                attempt(name, lambda one=one: one.log(named | {"rounds": step}))
            else:
                attempt(name, lambda one=one: one.log(dict(named), step=step))

    try:
        for name in section.to:
            running[name] = _begin(name, section.project, folder, table)
        yield log
    finally:
        for name, one in list(running.items()):
            attempt(name, one.finish)
        if server is None:
            os.environ.pop(MLFLOW, None)  # mlflow sets it to this run's own database


def of_round(row: Mapping[str, Any], subspaces: int) -> dict[str, float]:
    """What is tracked of a round: from its line in the log, and how many subspaces there are."""
    losses = row["losses"]
    return {
        "round/loss": sum(losses) / len(losses),
        "round/seconds": row["seconds"],
        "round/bytes_down": sum(row["bytes_down"]),
        "round/bytes_up": sum(row["bytes_up"]),
        "round/subspaces": subspaces,
    }


def of_stage(matrix: Mapping[str, Any]) -> dict[str, float]:
    """What is tracked of a stage: the last row of `matrix.json`, and Last and Avg so far (percent)."""
    accuracies = zip(matrix["datasets"], matrix["matrix"][-1], strict=True)
    seen = {f"accuracy/{name}": value for name, value in accuracies if value is not None}
    return seen | {"Last": matrix["last"], "Avg": matrix["avg"]}


def _begin(name: str, project: str, folder: Path, table: Mapping[str, Any]) -> GeneralTracker:
    """One tracker, started, or gone on with where it knows this run already."""
    place = folder / "tracking"
    ids = place / "begun.json"
    begun: dict[str, str] = read_json(ids) if ids.is_file() else {}
    place.mkdir(exist_ok=True)
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    try:
        from accelerate import PartialState

        PartialState(cpu=True)  # accelerate's logging asks for it, and would look for GPUs
        start = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}[name]
        tracker, key = start(project, folder.resolve(), begun.get(name))
        if name not in begun:
            keys = flat(table).items()
            plain = {k: v if isinstance(v, str | int | float) else json.dumps(v) for k, v in keys}
            tracker.store_init_configuration(plain)
            write_json(ids, begun | {name: key})
    except Exception as error:
        raise FcitError(f"tracking.to: {name} does not start: {first_line(error)}") from None
    return tracker


def _tensorboard(project: str, folder: Path, known: str | None) -> tuple[GeneralTracker, str]:
    from accelerate.tracking import TensorBoardTracker

    tracker = TensorBoardTracker("tensorboard", logging_dir=folder / "tracking")
    tracker.start()
    return tracker, ""


def _wandb(project: str, folder: Path, known: str | None) -> tuple[GeneralTracker, str]:
    """Offline, unless the environment names a mode or an account."""
    from accelerate.tracking import WandBTracker
    from wandb import Settings  # type: ignore

    mode = os.environ.get("WANDB_MODE") or (
        "online" if os.environ.get("WANDB_API_KEY") else "offline"
    )
    key = known or secrets.token_hex(4)
    settings = Settings(
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    tracker = WandBTracker(
        project,
        name=folder.name,
        dir=folder / "tracking",
        id=key,
        mode=mode,
        resume="allow" if mode == "online" else None,
        settings=settings,
    )
    tracker.start()
    return tracker, key


def _mlflow(project: str, folder: Path, known: str | None) -> tuple[GeneralTracker, str]:
    """In the run's folder, unless the environment names a server."""
    import mlflow  # type: ignore
    from accelerate.tracking import MLflowTracker

    own = not os.environ.get(MLFLOW)
    if own:
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'tracking' / 'mlflow.db'}")
    artifacts = (folder / "tracking" / "mlflow").as_uri() if own else None
    tracker = MLflowTracker(project, artifacts, run_id=known, run_name=folder.name)
    tracker.start()
    return tracker, tracker.tracker.info.run_id
