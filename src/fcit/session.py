"""One run from beginning to end: the engine, the loop, the evaluation, and the folder they fill."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcit import config as configs
from fcit import privacy
from fcit.config import Config
from fcit.engines.local import LocalEngine
from fcit.experiment import Experiment
from fcit.files import ASIDE, read_json, write_json
from fcit.journal import RunJournal
from fcit.models import CHECKPOINTS
from fcit.pretrain.general import GENERAL
from fcit.results import Results, Row
from fcit.runfolder import RunFolder
from fcit.server import Position, Round, federate
from fcit.types import FcitError, State
from fcit.watch import Watch

FREE_TO_CHANGE = tuple(
    ("federation", key) for key in ("workers", "engine", "min_clients", "deadline")
)
"""What a resumed run may set otherwise: it changes the speed and how much may fail, not the numbers."""


class Session:
    """A run's folder with everything that works on it."""

    def __init__(self, config: Config, folder: Path, watch: Watch):
        self.config, self.folder, self.watch = config, RunFolder(folder), watch
        if config.federation.engine != "local":
            raise FcitError(
                f"federation.engine: {config.federation.engine!r} is not in this version of fcit; "
                "use local"
            )
        self.experiment = Experiment(config)
        self.method, self.setting = self.experiment.method, self.experiment.setting
        self.stages = self.experiment.training_setting.stages
        self.results = Results(self.experiment, self.folder, watch)

    # -- the folder ------------------------------------------------------------------------------

    def open(self, resume: bool) -> None:
        """Begin the folder, or check that it is this run's. Raises FcitError when it is not."""
        folder, path = self.folder, self.folder.path
        if resume and not path.is_dir():
            raise FcitError(f"{path}: no such run folder to resume; run without --resume")
        strangers = (
            [one for one in path.iterdir() if not one.name.startswith(ASIDE)]
            if path.is_dir()
            else []
        )
        if strangers and not folder.config.is_file():
            raise FcitError(f"{path}: not a run folder and not empty; choose another --out")
        table = configs.to_table(self.config)
        if folder.begun():
            theirs = configs.to_table(configs.load(folder.config))
            self._same_base()
            key = _first_difference(_comparable(theirs), _comparable(table))
            if key:
                raise FcitError(
                    f"{path}: holds a run of another config ({key} differs); choose another --out"
                )
            if not resume:
                raise FcitError(
                    f"{path}: this run is already there; go on with --resume or choose another --out"
                )
        path.mkdir(parents=True, exist_ok=True)
        if not folder.begun():
            configs.write(folder.config, _plain(table) | {"versions": versions(self.config)})

    def _same_base(self) -> None:
        """Raise FcitError when the mini model is not the one the run was begun with."""
        made = tomllib.loads(self.folder.config.read_text(encoding="utf-8")).get("versions", {})
        now = base(self.config)
        if made.get("base", now) != now:
            raise FcitError(
                f"{self.folder.path}: was made with another version of the mini model; "
                "choose another --out"
            )

    def prepare(self) -> None:
        """Make or check the data; write down who holds how much of it."""
        if self.experiment.privacy.on:
            privacy.require()
        self.experiment.prepare(self.watch)
        write_json(
            self.folder.partition,
            {
                "data": str(self.experiment.root),
                "datasets": self.experiment.counts(self.experiment.training_setting),
            },
        )

    # -- the run ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Do what is left of the run."""
        with self.folder.locked(), LocalEngine(self.config, self._workers()) as engine:
            position = self.folder.position()
            self.folder.tidy()
            self.folder.keep_log(position)
            if position:
                state, engine.memory = self.folder.state()
                self.watch.say(
                    f"going on after stage {position.stage + 1}, round {position.rounds}"
                )
            else:
                state = engine.start()
            zero = self.results.zero_shot(engine)
            rows = self._known_rows(position)
            self.results.write_matrix(zero, rows)
            if self.stages:
                self._federate(engine, state, position, zero, rows)
            self.results.write_matrix(zero, rows)

    def _federate(
        self,
        engine: LocalEngine,
        state: State,
        position: Position | None,
        zero: Mapping[str, float],
        rows: list[Row],
    ) -> None:
        total = len(self.stages) * self.experiment.training_setting.rounds
        per_round = self.experiment.training_setting.per_round
        start = (position.stage * total // len(self.stages) + position.rounds) if position else 0

        with self.watch.bar(
            f"{self.config.method.name}: clients' turns", total * per_round
        ) as step:
            done = start * per_round
            step(done)

            def tick() -> None:
                nonlocal done
                done += 1
                step(done)

            def after_round(state: State, report: Round) -> None:
                self.results.log(report)
                self.folder.commit(state, report.position, engine.memory)
                journal.clear()

            def after_stage(state: State, position: Position) -> None:
                self.folder.commit(state, position, engine.memory)
                last = position.stage == len(self.stages) - 1
                if self.method.once and not last:
                    return
                seen = (
                    self.setting.datasets if self.method.once else self.setting.seen(position.stage)
                )
                row = self.results.row(engine, state, position.stage, seen)
                del rows[self._row_index(position.stage) :]
                rows.append(row)
                self.results.write_matrix(zero, rows)
                self.results.clock = time.monotonic()

            engine.tick = tick
            journal = RunJournal(self.folder.path, engine.memory)
            self.results.clock = time.monotonic()
            federate(
                self.experiment.training_setting,
                self.experiment.plan,
                self.method,
                state,
                engine,
                after_round,
                after_stage,
                position,
                self.experiment.optimiser,
                self.config.federation.terms(self.experiment.privacy, self.config.seed),
                journal,
            )

    def evaluate(self) -> Row:
        """Answer the test sets anew with the run's last state; return its row (percent).

        Raises FcitError on a run that is not finished: its state is between two rows.
        """
        position, last = self.folder.position(), len(self.stages) - 1
        if self.stages and (position is None or not position.ended or position.stage < last):
            raise FcitError(
                f"{self.folder.path}: this run is not finished; finish it with fcit run --resume"
            )
        self._same_base()
        names = self.setting.datasets
        stage = self.results.stage_name(last)
        state = self.folder.state()[0] if self.stages else State()
        with self.folder.locked(), LocalEngine(self.config, self._workers()) as engine:
            rows = self._known_rows(position)[: self._row_index(last)] if self.stages else []
            for name in (*names, GENERAL):
                self.results.forget(stage, name)
            row = self.results.row(engine, state, last, names)
            zero = self.results.zero_shot(engine)
            self.results.write_matrix(zero, [*rows, row] if self.stages else [])
        return row

    # -- small things --------------------------------------------------------------------------------

    def _row_index(self, stage: int) -> int:
        return 0 if self.method.once else stage

    def _known_rows(self, position: Position | None) -> list[Row]:
        if position is None or not self.folder.matrix.is_file():
            return []
        return read_json(self.folder.matrix)["matrix"][: self._row_index(position.stage) + 1]

    def _workers(self) -> int:
        federation = self.config.federation
        if federation.workers:
            return federation.workers
        if self.config.model.device not in ("auto", "cpu"):
            return 1
        if self.config.model.device == "auto":
            from fcit.models.device import choose

            if choose("auto", "auto")[0] != "cpu":
                return 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        useful = max(federation.per_round, 4)
        return max(1, min(useful, (cores or 1) // self.config.training.threads))


def base(config: Config) -> str:
    """A digest of those of the package's own checkpoints that a configuration uses."""
    digest = hashlib.sha256()
    part = config.model
    named = (("mini-lmm", part.path), ("mini-clip", part.identity))
    for name in (name for name, other in named if not other):
        digest.update((CHECKPOINTS / name / "model.safetensors").read_bytes())
    return digest.hexdigest()[:12]


def versions(config: Config) -> dict[str, str]:
    """What the numbers were made with."""
    packages = ("fcit", "torch", "transformers", "numpy", "pillow")
    found = {name: importlib.metadata.version(name) for name in packages}
    from fcit.models.device import choose

    device, dtype = choose(config.model.device, config.model.dtype)
    computed = f"{str(dtype).removeprefix('torch.')} on {device}"
    return found | {
        "python": platform.python_version(),
        "commit": _commit(),
        "base": base(config),
        "computed": computed,
    }


def _commit() -> str:
    """The commit of fcit's own checkout; "unknown" where it was installed without one."""
    here = Path(__file__).parent
    if not (here.parents[1] / ".git").exists():
        return "unknown"
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _comparable(table: Mapping[str, Any]) -> dict[str, Any]:
    flat = {
        (section, key): value
        for section, part in table.items()
        if isinstance(part, Mapping)
        for key, value in part.items()
    }
    flat |= {("", key): value for key, value in table.items() if not isinstance(value, Mapping)}
    return {
        ".".join(filter(None, key)): value
        for key, value in flat.items()
        if key not in FREE_TO_CHANGE
    }


def _first_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    return next((key for key in sorted({*a, *b}) if a.get(key) != b.get(key)), "")


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}
