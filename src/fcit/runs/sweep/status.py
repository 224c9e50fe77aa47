"""How far the runs of a sweep are, and how long they took."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcit.files import read_json
from fcit.recipe import config as configs
from fcit.recipe.config import Config
from fcit.rounds.records import parse
from fcit.rounds.runfolder import ZERO_SHOT
from fcit.rounds.server import Position
from fcit.runs.session import Session
from fcit.runs.sweep.plan import SweepRun
from fcit.types import FcitError
from fcit.watch import Silent


@dataclass(frozen=True)
class Clock:
    """How long a run has taken so far."""

    seconds: float = 0.0
    starts: int = 0
    jobs: int = 0
    """Runs at a time in its last start, itself included."""
    done: bool = False

    @property
    def whole(self) -> bool:
        """Whether `seconds` is the time of one uninterrupted run, and not only a lower bound."""
        return self.done and self.starts == 1


@dataclass(frozen=True)
class RunStatus:
    """How far a run is."""

    run: SweepRun
    config: Config
    finished: bool
    position: Position | None
    """None before the first round."""


def survey(runs: Sequence[SweepRun]) -> list[RunStatus]:
    """How far each run is; writes nothing.

    Raises FcitError on an invalid recipe, and on a folder that holds something else.
    """
    statuses: list[RunStatus] = []
    for run in runs:
        try:
            config = configs.load(run.recipe, run.changes, run.file or run.method)
            if (config.method.name, config.seed) != (run.method, run.seed):
                raise FcitError(
                    "`methods` and `seeds` give method.name and seed, not `set` or `grid`"
                )
            session = Session(config, run.folder, Silent())
            session.check(resume=run.folder.is_dir())
            same_data(session)
        except FcitError as error:
            raise FcitError(f"{run}: {error}") from None
        statuses.append(RunStatus(run, config, session.finished, session.folder.position()))
    return statuses


def clock(run: SweepRun) -> Clock:
    """A run's clock; a run made without the sweep has none and counts as started once."""
    if run.clock.is_file():
        return parse(Clock, read_json(run.clock), str(run.clock))
    return Clock(starts=int(run.folder.is_dir()))


def same_data(session: Session) -> None:
    """Raise FcitError if a run answered other questions than the present data folder has.

    Checked only where the folder's name differs: the mini suite's changes with every version of its code,
    mostly without a change of its questions.
    """
    experiment, folder = session.experiment, session.folder
    root = folder.read(folder.partition).get("data", "") if folder.partition.is_file() else ""
    if not root or Path(root).name == experiment.root.name or not experiment.root.is_dir():
        return
    for name in session.setting.datasets:
        if folder.predictions(ZERO_SHOT, name).is_file():
            session.results.answers(ZERO_SHOT, name)
