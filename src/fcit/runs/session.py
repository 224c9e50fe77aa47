"""One run from beginning to end: its folder, its engine, the training loop and the evaluation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from fcit.aggregation import privacy
from fcit.engines.local import LocalEngine
from fcit.files import ASIDE, locked, private, sweep_aside
from fcit.models import hub
from fcit.models.device import choose
from fcit.recipe import config as configs
from fcit.recipe.config import Config
from fcit.rounds.journal import RunJournal
from fcit.rounds.records import log_line
from fcit.rounds.replies import named
from fcit.rounds.runfolder import RunFolder
from fcit.rounds.server import Position, federate
from fcit.runs import provenance
from fcit.runs.engine import SUPERLINK, Build, build, check_here, check_memory, on_device, workers
from fcit.runs.partition import check_lengths, write_partition
from fcit.runs.results import Results, Row
from fcit.runs.tracking import Log, of_round, of_stage, require, tracking
from fcit.types import FcitError, State, Weights
from fcit.watch import Watch
from fcit.weights import threads
from fcit.worker.experiment import Experiment

if TYPE_CHECKING:
    from fcit.runs.engine import AnyEngine


class Session:
    """A run's folder and everything that works on it.

    deployed: whether a SuperLink runs it, so that only the clients know what data they have.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        watch: Watch,
        build: Build = build,
        deployed: bool = False,
    ):
        self.config, self.folder, self.watch = config, RunFolder(folder), watch
        require(config.tracking)
        self.build, self.deployed = build, deployed
        self.experiment = Experiment(config)
        self.method, self.setting = self.experiment.method, self.experiment.setting
        self.stages = self.experiment.training_setting.stages
        self.results = Results(self.experiment, self.folder, watch)

    # -- the folder ------------------------------------------------------------------------------

    def open(self, resume: bool) -> None:
        """Begin the folder, or check that it holds this run.

        Raises FcitError if it does not, or where the recipe's device or models are not to be had.
        """
        self.check(resume)
        if not self.finished:
            if self.build is build:  # not Flower's apps, which began such runs
                check_here(self.folder)
            workers(self.config)
            section = self.config.model
            choose(section.device, section.dtype)
            hub.require(section.path, "model.path")
            hub.require_encoder(section.identity, self.method.identity)
        if not self.folder.begun():
            with private(self.folder.path), locked(self.folder.path, "run"):
                self.begin()

    def begin(self, **made: str) -> None:
        """Make the folder with its config.toml. made: more of what the run was made with."""
        with private(self.folder.path):
            self.folder.path.chmod(0o700)
            table = configs.to_table(self.config)
            made |= {"engine": SUPERLINK} if self.deployed else {}
            table |= {"versions": provenance.versions(self.experiment) | made}
            self.folder.begin({key: part for key, part in table.items() if part is not None})

    def check(self, resume: bool) -> None:
        """Raise FcitError where `open` would; write nothing."""
        folder, path = self.folder, self.folder.path
        if resume and not path.is_dir():
            raise FcitError(f"{path}: no such run folder to resume; run without --resume")
        nearest = next(above for above in (path, *path.absolute().parents) if above.exists())
        if not nearest.is_dir():
            raise FcitError(f"{nearest}: is a file, not a folder; choose another --out")
        files = path.iterdir() if path.is_dir() else ()
        foreign = any(not file.name.startswith((ASIDE, ".lock")) for file in files)
        if foreign and not folder.config.is_file():
            raise FcitError(
                f"{path}: not a run folder (no config.toml), not empty; take another --out"
            )
        if not folder.begun():
            return
        then = folder.table().get("versions", {})
        provenance.check_config(self.config, configs.load_run(folder.config), path)
        provenance.check_models(then, self.experiment, path)
        provenance.check_rules(then, self.experiment, path)
        if not resume:
            state = (
                "is already finished; see fcit report"
                if self.finished
                else "already exists; continue it with --resume"
            )
            raise FcitError(f"{path}: this run {state}, or choose another --out")
        folder.check(self.experiment.plan, self.method.single_row)

    @property
    def finished(self) -> bool:
        """Whether the matrix has all its rows."""
        rows = min(1, len(self.stages)) if self.method.single_row else len(self.stages)
        return self.folder.matrix.is_file() and len(self.folder.rows()) >= rows

    def prepare(self, partition: bool = True, data: bool = True) -> None:
        """Make or check the data, and write how many samples each client has.

        data: whether this process has data; partition: whether it knows the clients' shares. Raises
        FcitError where clients have other samples than before.
        """
        experiment = self.experiment
        if self.config.privacy.on:
            privacy.require()
        if data:
            experiment.prepare(self.watch)
            experiment.check_ids()
            if told := experiment.left_out(partition):
                self.watch.say(f"left out, as their images are missing or cannot be read: {told}")
        if partition:
            write_partition(self.folder, experiment, self.watch)

    # -- the run ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Do what is left of the run, if anything."""
        folder = self.folder
        if self.finished:
            self._state()
            self.watch.say(f"{folder.path}: this run is already finished")
            return
        with locked(folder.path, "run"):
            if not folder.begun():
                self.begin()  # again: another process may have, since `open`
            state, memory = self._state()
            shares = not self.deployed
            data = shares or self.config.evaluation.where == "server"
            self.prepare(shares, data)
            if data:
                self.experiment.check_images(train=shares)
            self._run(state, memory)

    def _state(self) -> tuple[State, dict[int, Weights]]:
        """What the run last committed. Raises FcitError where it, or an answer, was changed."""
        self.folder.check_answers()
        state, memory = self.folder.state()
        check_memory(self.config, memory)
        return state, memory

    def _run(self, state: State, memory: dict[int, Weights]) -> None:
        config, folder, results = self.config, self.folder, self.results
        table = configs.to_table(config)
        table["method"]["name"] = config.method.name
        with (
            threads(config.training.threads),  # the server's sums depend on it, too
            private(folder.path),
            tracking(config.tracking, folder.path, table, self.watch.say) as track,
            self.build(config, workers(config), folder.path) as engine,
        ):
            self.watch.say(f"loading {config.model.path or 'the mini model'}")
            position = folder.position()
            sweep_aside(folder.path)
            folder.keep_log(self._rounds(position))
            if position:
                folder.require_resumable()
                engine.memory = memory
                where = f"stage {position.stage + 1}, round {position.rounds}"
                self.watch.say(f"continuing after {where}")
                for told in provenance.changes(folder.table().get("versions", {}), self.experiment):
                    self.watch.say(told)
            else:
                state = engine.start()
                check_lengths(engine, () if self.deployed else self.stages, self.watch)
            zero = results.zero_shot(engine)
            rows = self._known_rows(position)
            if not folder.matrix.is_file():
                track({f"zero-shot/{name}": value for name, value in zero.items()}, 0)
            results.write_matrix(zero, rows)
            if self.stages:
                self._federate(engine, state, position, zero, rows, track)

    def _federate(
        self,
        engine: AnyEngine,
        state: State,
        position: Position | None,
        zero: Mapping[str, float],
        rows: list[Row],
        track: Log,
    ) -> None:
        """Train; after each round commit and log it, after each stage add a row to the matrix."""
        folder, experiment = self.folder, self.experiment
        run = experiment.federated_run(engine.token_width(), dealt=not self.deployed)
        journal = RunJournal(folder.path, partial(check_memory, self.config))
        since = time.monotonic()
        per_round = experiment.training_setting.per_round
        total = per_round * sum(map(len, experiment.plan))
        turns = count(per_round * self._rounds(position))
        with self.watch.bar(f"{self.config.method.name}: clients' turns", total) as step:
            step(next(turns))
            engine.tick = lambda: step(next(turns))
            for after, now, report in federate(run, state, engine, position, journal):
                if report:
                    seconds, since = time.monotonic() - since, time.monotonic()
                    row = log_line(now, report, seconds)
                    step(per_round * self._rounds(now), self._label(now, row["losses"]))
                    for fault in report.faults:
                        self.watch.say(f"stage {now.stage + 1}, round {now.rounds}: {named(fault)}")
                    folder.append_log(row)
                    engine.memory |= journal.memories()
                    check_memory(self.config, engine.memory)
                    folder.commit(after, now, engine.memory)
                    journal.clear()
                    track(of_round(row, len(after.adapters)), self._rounds(now))
                    continue
                folder.commit(after, now, engine.memory)
                journal.clear()  # of a last round whose commit was not followed by this
                if self.method.single_row and now.stage < len(self.stages) - 1:
                    continue
                row = self.results.row(engine, after, now.stage)
                index = self._row_index(now.stage)
                fresh = len(rows) == index
                rows[index:] = [row]
                matrix = self.results.write_matrix(zero, rows)
                if fresh:
                    track(of_stage(matrix), self._rounds(now))
                since = time.monotonic()

    def evaluate(self, device: str = "") -> Row:
        """Answer the test sets again with the run's last state; return its row (percent).

        device: where the model answers, instead of on the recipe's `model.device`. Raises FcitError
        on a run that is not finished: its state is between two rows.
        """
        position, last = self.folder.position(), len(self.stages) - 1
        if self.stages and (position is None or not position.ended or position.stage < last):
            raise FcitError(
                f"{self.folder.path}: this run is not finished; finish it with fcit run --resume"
            )
        here = self.folder.partition.is_file() or self.folder.imported
        if self.config.evaluation.where == "clients" and not here:
            raise FcitError(
                f"{self.folder.path}: its clients scored their own test samples, which are not here"
            )
        self.check(resume=True)
        config = on_device(self.config, device)
        then = self.folder.table().get("versions", {})
        if now := provenance.elsewhere(then, config.model):
            self.watch.say(f"answering in {now}; the run was computed in {then['computed']}")
        self.prepare(partition=here)
        with (
            threads(self.config.training.threads),
            private(self.folder.path),
            locked(self.folder.path, "run"),
            LocalEngine(config, workers(config)) as engine,
        ):
            state = self.folder.state()[0]
            rows = self._known_rows(position)[: self._row_index(last)] if self.stages else []
            for name in (*self.setting.datasets, *self.experiment.folder.general):
                self.results.ask_again(self.results.stage_name(last), name)
            row = self.results.row(engine, state, last)
            zero = self.results.zero_shot(engine)
            self.results.write_matrix(zero, [*rows, row] if self.stages else [], now)
        return row

    def _label(self, now: Position, losses: Sequence[float]) -> str:
        """What is shown of the last round."""
        rounds, loss = len(self.experiment.plan[now.stage]), fmean(losses or [float("nan")])
        stage = f"stage {now.stage + 1}/{len(self.stages)}, round {now.rounds}/{rounds}"
        return f"{self.config.method.name}: {stage}, loss {loss:.4g}"

    def _rounds(self, position: Position | None) -> int:
        """How many rounds of the run are done."""
        at = position or Position()
        return sum(map(len, self.experiment.plan[: at.stage])) + at.rounds

    def _row_index(self, stage: int) -> int:
        return 0 if self.method.single_row else stage

    def _known_rows(self, position: Position | None) -> list[Row]:
        return self.folder.rows()[: self._row_index(position.stage) + 1] if position else []
