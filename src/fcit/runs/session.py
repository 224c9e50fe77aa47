"""One run from beginning to end: the engine, the loop, the evaluation, and the folder they fill."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcit.aggregation import privacy
from fcit.benchmark.general import GENERAL
from fcit.benchmark.published import PARTITIONS
from fcit.engines.local import LocalEngine, cores, shared
from fcit.files import ASIDE, read_json, write_json
from fcit.recipe import config as configs
from fcit.recipe.config import Config
from fcit.recipe.tracking import Log, of_round, of_stage, require, tracking
from fcit.rounds.journal import RunJournal
from fcit.rounds.replies import named
from fcit.rounds.runfolder import RunFolder
from fcit.rounds.server import Position, Round, federate
from fcit.runs import log
from fcit.runs.engine import Build, build, check_memory
from fcit.runs.provenance import base, versions
from fcit.runs.results import Results, Row
from fcit.types import FcitError, State
from fcit.watch import Watch
from fcit.worker.experiment import Experiment

if TYPE_CHECKING:
    from fcit.runs.engine import AnyEngine

FREE_TO_CHANGE = (
    *(("federation", key) for key in ("workers", "engine", "min_clients", "deadline")),
    ("tracking", "to"),
    ("tracking", "project"),
)
"""What a resumed run may set otherwise: the speed and how much may fail, not the numbers."""


class Session:
    """A run's folder with everything that works on it."""

    def __init__(self, config: Config, folder: Path, watch: Watch, build: Build = build):
        self.config, self.folder, self.watch = config, RunFolder(folder), watch
        require(config.tracking)
        self.build = build
        self.experiment = Experiment(config)
        self.method, self.setting = self.experiment.method, self.experiment.setting
        self.stages = self.experiment.training_setting.stages
        self.results = Results(self.experiment, self.folder, watch)

    # -- the folder ------------------------------------------------------------------------------

    def open(self, resume: bool) -> None:
        """Begin the folder, or check that it is this run's. Raises FcitError when it is not."""
        self.check(resume)
        self.folder.path.mkdir(parents=True, exist_ok=True)
        if not self.folder.begun():
            made_with = {"versions": versions(self.config)}
            configs.write(self.folder.config, _plain(configs.to_table(self.config)) | made_with)

    def check(self, resume: bool) -> None:
        """Write nothing; raise FcitError where `open` would."""
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

    def _same_base(self) -> None:
        """Raise FcitError when the mini model is not the one the run was begun with."""
        made = tomllib.loads(self.folder.config.read_text(encoding="utf-8")).get("versions", {})
        now = base(self.config)
        if made.get("base", now) != now:
            raise FcitError(
                f"{self.folder.path}: was made with another version of the mini model; "
                "choose another --out"
            )

    def prepare(self, partition: bool = True, data: bool = True) -> None:
        """Make or check the data (`data`: where this process has any); write down who holds how much of
        it (`partition`: where the server knows)."""
        if self.experiment.privacy.on:
            privacy.require()
        self.experiment.prepare(self.watch, data)
        if data:
            self.experiment.check_ids()
        if not partition:
            return
        experiment, setting = self.experiment, self.experiment.training_setting
        counts, published = experiment.counts(setting), sorted(experiment.published)
        if (experiment.root / PARTITIONS).is_dir():
            tasks = {task.name for stage in setting.stages for task in stage.tasks}
            own = sorted(tasks - experiment.published)
            said = [f"published for {', '.join(published)}"] if published else []
            said += [f"drawn from the seed for {', '.join(own)}"] if own else []
            self.watch.say(f"the clients' shares: {'; '.join(said)}")
        found = {"data": str(experiment.root), "published": published, "datasets": counts}
        write_json(self.folder.partition, found)

    # -- the run ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Do what is left of the run."""
        config, folder = self.config, self.folder
        with (
            folder.locked(),
            tracking(
                config.tracking, folder.path, configs.to_table(config), self.watch.say
            ) as track,
            self._engine() as engine,
        ):
            position = self.folder.position()
            self.folder.tidy()
            self.folder.keep_log(position)
            if position:
                folder.require_resumable()
                state, engine.memory = folder.state()
                check_memory(self.config, engine.memory)
                self.watch.say(
                    f"going on after stage {position.stage + 1}, round {position.rounds}"
                )
            else:
                state = engine.start()
            zero = self.results.zero_shot(engine)
            rows = self._known_rows(position)
            if not folder.matrix.is_file():
                track({f"zero-shot/{name}": value for name, value in zero.items()}, 0)
            self.results.write_matrix(zero, rows)
            if self.stages:
                self._federate(engine, state, position, zero, rows, track)
            self.results.write_matrix(zero, rows)

    def _federate(
        self,
        engine: AnyEngine,
        state: State,
        position: Position | None,
        zero: Mapping[str, float],
        rows: list[Row],
        track: Log,
    ) -> None:
        total = sum(map(len, self.experiment.plan))
        per_round = self.experiment.training_setting.per_round
        start = self._rounds(position) if position else 0

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
                nonlocal clock
                now = time.monotonic()
                row, clock = log.line(report, now - clock), now
                for fault in report.faults:
                    self.watch.say(f"stage {row['stage']}, round {row['round']}: {named(fault)}")
                self.folder.append_log(row)
                engine.memory |= journal.memories()
                check_memory(self.config, engine.memory)
                self.folder.commit(state, report.position, engine.memory)
                journal.clear()
                track(of_round(row, len(state.adapters)), self._rounds(report.position))

            def after_stage(state: State, position: Position) -> None:
                nonlocal clock
                self.folder.commit(state, position, engine.memory)
                last = position.stage == len(self.stages) - 1
                if self.method.once and not last:
                    return
                seen = self.results.seen(position.stage)
                row = self.results.row(engine, state, position.stage, seen)
                index = self._row_index(position.stage)
                fresh = len(rows) == index
                rows[index:] = [row]
                matrix = self.results.write_matrix(zero, rows)
                if fresh:
                    track(of_stage(matrix), self._rounds(position))
                clock = time.monotonic()

            engine.tick = tick
            journal = RunJournal(self.folder.path, partial(check_memory, self.config))
            clock = time.monotonic()
            federate(
                self.experiment.training_setting,
                self.experiment.plan,
                self.method,
                state,
                engine,
                after_round,
                after_stage,
                position,
                self.experiment.optimizer,
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
        with self.folder.locked(), LocalEngine(self.config, workers(self.config)) as engine:
            rows = self._known_rows(position)[: self._row_index(last)] if self.stages else []
            for name in (*names, GENERAL):
                self.results.forget(stage, name)
            row = self.results.row(engine, state, last, self.results.seen(last))
            zero = self.results.zero_shot(engine)
            self.results.write_matrix(zero, [*rows, row] if self.stages else [])
        return row

    # -- small things --------------------------------------------------------------------------------

    def _rounds(self, position: Position) -> int:
        """How many rounds of the run are done."""
        return sum(map(len, self.experiment.plan[: position.stage])) + position.rounds

    def _row_index(self, stage: int) -> int:
        return 0 if self.method.once else stage

    def _known_rows(self, position: Position | None) -> list[Row]:
        if position is None or not self.folder.matrix.is_file():
            return []
        return read_json(self.folder.matrix)["matrix"][: self._row_index(position.stage) + 1]

    def _engine(self) -> AnyEngine:
        return self.build(self.config, workers(self.config), self.folder.path)


def workers(config: Config) -> int:
    """How many processes the clients of a run share."""
    federation = config.federation
    if federation.workers:
        return federation.workers
    useful = max(federation.per_round, 4)
    if here := shared(config):
        return min(useful, len(here))
    if config.model.device not in ("auto", "cpu"):
        return 1
    if config.model.device == "auto":
        from fcit.models.device import choose

        if choose("auto", "auto")[0] != "cpu":
            return 1
    return max(1, min(useful, cores() // config.training.threads))


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
