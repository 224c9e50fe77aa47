"""One run from beginning to end: the engine, the loop, the evaluation, and the folder they fill."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fcit import config as configs
from fcit.benchmark import metrics, scorers
from fcit.config import Config
from fcit.engines.local import LocalEngine
from fcit.evaluate import chunks, routing
from fcit.experiment import Experiment
from fcit.files import read_json, read_lines, write_json, write_lines
from fcit.runfolder import ZERO_SHOT, RunFolder
from fcit.server import Position, Round, federate
from fcit.types import FcitError, State
from fcit.watch import Watch
from fcit.weights import nbytes, state_bytes

FREE_TO_CHANGE = (("federation", "workers"), ("federation", "engine"))
"""What a resumed run may set otherwise: it changes the speed, not the numbers."""


class Session:
    """A run's folder with everything that works on it."""

    def __init__(self, config: Config, folder: Path, watch: Watch):
        self.config, self.folder, self.watch = config, RunFolder(folder), watch
        self.experiment = Experiment(config)
        self.method, self.setting = self.experiment.method, self.experiment.setting
        self.stages = self.experiment.training_setting.stages
        self.homes: dict[str, set[str]] = {}
        self.clock = time.monotonic()

    # -- the folder ------------------------------------------------------------------------------

    def open(self, resume: bool) -> None:
        """Begin the folder, or check that it is this run's. Raises FcitError when it is not."""
        folder, path = self.folder, self.folder.path
        if resume and not path.is_dir():
            raise FcitError(f"{path}: no such run folder to resume; run without --resume")
        if path.is_dir() and any(path.iterdir()) and not folder.config.is_file():
            raise FcitError(f"{path}: not a run folder and not empty; choose another --out")
        table = configs.to_table(self.config)
        if folder.config.is_file():
            theirs = configs.to_table(configs.load(folder.config))
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
        folder.tidy()
        if not folder.config.is_file():
            configs.write(folder.config, _plain(table) | {"versions": versions()})

    def prepare(self) -> None:
        """Make or check the data; write down who holds how much of it."""
        with self.watch.bar("mini suite", 1) as step:
            self.experiment.prepare(self.watch.say, lambda done, total: step(done / total))
        counts = {
            name: [len(part) for part in self.experiment.counts(name)]
            for name in self.setting.datasets
            if self.stages
        }
        write_json(self.folder.partition, {"datasets": counts})

    # -- the run ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Do what is left of the run."""
        position = self.folder.position()
        self.folder.keep_log(position)
        with LocalEngine(self.config, self._workers()) as engine:
            if position:
                state, engine.memory = self.folder.state()
                self.watch.say(f"going on after stage {position.stage + 1}, round {position.rounds}")
            else:
                state = engine.start()
            zero = self._zero_shot(engine)
            rows: list[list[float | None]] = []
            if self.stages:
                rows = self._known_rows(position)
                self._federate(engine, state, position, zero, rows)
            self._write_matrix(zero, rows)

    def _federate(self, engine, state, position, zero, rows) -> None:  # noqa: ANN001
        total = len(self.stages) * self.experiment.training_setting.rounds
        per_round = self.experiment.training_setting.per_round
        start = (position.stage * total // len(self.stages) + position.rounds) if position else 0

        with self.watch.bar(f"{self.config.method.name}: clients' turns", total * per_round) as step:
            done = start * per_round
            step(done)

            def tick() -> None:
                nonlocal done
                done += 1
                step(done)

            def after_round(state: State, report: Round) -> None:
                self._log(report)
                self.folder.commit(state, report.position, engine.memory)

            def after_stage(state: State, position: Position) -> None:
                self.folder.commit(state, position, engine.memory)
                last = position.stage == len(self.stages) - 1
                if self.method.once and not last:
                    return
                seen = self.setting.datasets if self.method.once else self.setting.seen(position.stage)
                row = self._row(engine, state, str(self._stage_name(position.stage)), seen)
                del rows[self._row_index(position.stage) :]
                rows.append(row)
                self._write_matrix(zero, rows)

            engine.tick = tick
            self.clock = time.monotonic()
            federate(
                self.experiment.training_setting,
                self.experiment.plan,
                self.method,
                state,
                engine,
                after_round,
                after_stage,
                position,
            )

    # -- evaluation ------------------------------------------------------------------------------

    def evaluate(self) -> list[float | None]:
        """Answer the test sets anew with the run's last state; return the last row (percent)."""
        position = self.folder.position()
        with LocalEngine(self.config, self._workers()) as engine:
            if position is None or not self.stages:
                for name in self.setting.datasets:
                    self.folder.predictions(ZERO_SHOT, name).unlink(missing_ok=True)
                zero = self._zero_shot(engine)
                self._write_matrix(zero, [])
                return [zero[name] for name in self.setting.datasets]
            state, _ = self.folder.state()
            seen = self.setting.datasets if self.method.once else self.setting.seen(position.stage)
            stage = self._stage_name(position.stage)
            for name in seen:
                self.folder.predictions(stage, name).unlink(missing_ok=True)
            row = self._row(engine, state, stage, seen)
            rows = self._known_rows(position)
            del rows[self._row_index(position.stage) :]
            self._write_matrix(self._zero_shot(engine), [*rows, row])
            return row

    def _zero_shot(self, engine: LocalEngine) -> dict[str, float]:
        names = self.setting.datasets
        row = self._row(engine, State(), ZERO_SHOT, names)
        return {name: value for name, value in zip(names, row, strict=True) if value is not None}

    def _row(self, engine: LocalEngine, state: State, stage: str, seen) -> list[float | None]:  # noqa: ANN001
        """The accuracies after a stage, in the setting's order of datasets; None where not seen."""
        left = [name for name in seen if not self.folder.predictions(stage, name).is_file()]
        if left:
            engine.place(state)
            parts = {name: self._chunks(name) for name in left}
            label = "zero-shot answers" if stage == ZERO_SHOT else f"answers after stage {stage}"
            with self.watch.bar(label, sum(map(len, parts.values()))) as step:
                done = 0
                for name, todo in parts.items():
                    answers = {}
                    for part, found in zip(todo, engine.answer(name, todo), strict=True):
                        answers |= dict(zip(part, found, strict=True))
                        done += 1
                        step(done)
                    self._keep(stage, name, answers)
        return [self._percent(stage, name) if name in seen else None for name in self.setting.datasets]

    def _chunks(self, name: str) -> list[list[int]]:
        return chunks(self.experiment.samples(name, "test"), self.config.evaluation.batch_size)

    def _keep(self, stage: str, name: str, answers: Mapping[int, Any]) -> None:
        samples = self.experiment.samples(name, "test")
        texts = [answers[i].text for i in range(len(samples))]
        score = scorers.score(name, texts, samples, self.config.evaluation.scoring)
        rows = [
            {
                "question_id": sample.id,
                "image": sample.image,
                "prompt": sample.prompt,
                "prediction": text,
                "truth": sample.answers[0] if len(sample.answers) == 1 else list(sample.answers),
                "score": round(each, 4),
                "activation": {k: round(v, 6) for k, v in answers[i].activation.items()},
            }
            for i, (sample, text, each) in enumerate(zip(samples, texts, score.each, strict=True))
        ]
        write_lines(self.folder.predictions(stage, name), rows)

    def _percent(self, stage: str, name: str) -> float:
        rows = read_lines(self.folder.predictions(stage, name))
        samples = self.experiment.samples(name, "test")
        texts = [row["prediction"] for row in rows]
        score = scorers.score(name, texts, samples, self.config.evaluation.scoring)
        return round(score.percent, 4)

    # -- what is written down --------------------------------------------------------------------

    def _log(self, report: Round) -> None:
        tokens = {one.client: nbytes({"token": one.token}) for one in report.identities}
        jobs, updates = report.jobs, report.updates
        now = time.monotonic()
        row = {
            "stage": report.position.stage + 1,
            "round": report.position.rounds,
            "clients": [job.turn.client for job in jobs],
            "tasks": [job.turn.task.name for job in jobs],
            "samples": [update.samples for update in updates],
            "losses": [round(update.metrics["loss"], 5) for update in updates],
            "subspaces": [",".join(update.adapters) for update in updates],
            "seconds": round(now - self.clock, 3),
            "bytes_down": [
                state_bytes(job.received.adapters) + state_bytes(job.received.extras) for job in jobs
            ],
            "bytes_up": [
                state_bytes(update.adapters)
                + state_bytes(update.extras)
                + tokens.get(update.client, 0)
                for update in updates
            ],
            "bytes_token": [tokens.get(update.client, 0) for update in updates],
        }
        self.clock = now
        self.folder.append_log(row)

    def _write_matrix(self, zero: Mapping[str, float], rows: list[list[float | None]]) -> None:
        names = list(self.setting.datasets)
        if rows:
            last, avg = metrics.last(rows), metrics.avg(rows)
        else:
            last = avg = sum(zero.values()) / len(zero)
        forgetting = metrics.forgetting(rows, names) if rows else dict.fromkeys(names, 0.0)
        stages = [] if not self.stages else ["all"] if self.method.once else [
            " + ".join(dict.fromkeys(task.name for task in stage.tasks)) for stage in self.stages
        ]
        value = {
            "setting": self.setting.name,
            "method": self.config.method.name,
            "scoring": self.config.evaluation.scoring,
            "beta": self.config.setting.beta,
            "seed": self.config.seed,
            "datasets": names,
            "stages": stages,
            "matrix": rows,
            "last": round(last, 4),
            "avg": round(avg, 4),
            "forgetting": {name: round(points, 4) for name, points in forgetting.items()},
            "zero_shot": dict(zero),
            "chance": self._chance(),
            "routing": self._routing(rows),
        }
        write_json(self.folder.matrix, value)

    def _chance(self) -> dict[str, float]:
        if not hasattr(self, "_chances"):
            samples, mode = self.experiment.samples, self.config.evaluation.scoring
            self._chances = {
                name: round(
                    scorers.chance(name, samples(name, "train"), samples(name, "test"), mode), 4
                )
                for name in self.setting.datasets
            }
        return self._chances

    def _routing(self, rows: list[list[float | None]]) -> dict[str, float]:
        """Percent of test prompts routed to a subspace that their dataset trained, at the last row."""
        if not rows or not self.method.identity:
            return {}
        homes: dict[str, set[str]] = {}
        tasks = {task.name: task.datasets for stage in self.stages for task in stage.tasks}
        for row in read_lines(self.folder.log):
            for task, subspace in zip(row["tasks"], row["subspaces"], strict=True):
                for name in tasks[task]:
                    homes.setdefault(name, set()).add(subspace)
        stage = str(len(rows))
        return {
            name: round(routing(read_lines(self.folder.predictions(stage, name)), homes[name]), 4)
            for name, value in zip(self.setting.datasets, rows[-1], strict=True)
            if value is not None
        }

    # -- small things ----------------------------------------------------------------------------

    def _stage_name(self, stage: int) -> str:
        return "1" if self.method.once else str(stage + 1)

    def _row_index(self, stage: int) -> int:
        return 0 if self.method.once else stage

    def _known_rows(self, position: Position | None) -> list[list[float | None]]:
        if position is None or not self.folder.matrix.is_file():
            return []
        return read_json(self.folder.matrix)["matrix"][: self._row_index(position.stage) + 1]

    def _workers(self) -> int:
        import os

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
        return max(1, (cores or 1) // self.config.training.threads)


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    packages = ("fcit", "torch", "transformers", "numpy", "pillow")
    found = {name: importlib.metadata.version(name) for name in packages}
    return found | {"python": platform.python_version(), "commit": _commit()}


def _commit() -> str:
    here = Path(__file__).parent
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
        ".".join(filter(None, key)): value for key, value in flat.items() if key not in FREE_TO_CHANGE
    }


def _first_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    return next((key for key in sorted({*a, *b}) if a.get(key) != b.get(key)), "")


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value is not None}
