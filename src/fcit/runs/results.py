"""A run's results: answers scored into matrix rows, and the files that hold them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Protocol

from fcit.aggregation.privacy import epsilon, exposures
from fcit.benchmark import metrics, scorers
from fcit.benchmark.general import GENERAL
from fcit.files import read_lines, write_json, write_lines
from fcit.rounds.evaluate import Answer, chunks, homes, routing
from fcit.rounds.replies import named
from fcit.rounds.runfolder import ZERO_SHOT, RunFolder
from fcit.rounds.server import Position, Round
from fcit.runs import client_scores
from fcit.types import State
from fcit.watch import Watch
from fcit.weights import nbytes
from fcit.worker.experiment import Experiment

Row = list[float | None]


class Answering(client_scores.Scoring, Protocol):
    """An engine's other half: whatever answers test samples with a state."""

    def answer(self, dataset: str, chunks: Sequence[Sequence[int]]) -> Iterator[list[Answer]]:
        """Answers to chunks of a dataset's test samples, in order."""
        ...


class Results:
    """Measures accuracies and writes predictions, log and matrix of one run."""

    def __init__(self, experiment: Experiment, folder: RunFolder, watch: Watch):
        self.experiment, self.folder, self.watch = experiment, folder, watch
        self.config, self.method = experiment.config, experiment.method
        self.setting = experiment.setting
        self.stages = experiment.training_setting.stages
        self.elsewhere = self.config.evaluation.where == "clients"
        self.clock = time.monotonic()
        self._scored: dict[tuple[str, str], float] = {}

    def forget(self, stage: str, dataset: str) -> None:
        """Remove a dataset's answers, or sums, after a stage."""
        self._scored.pop((stage, dataset), None)
        self.folder.predictions(stage, dataset).unlink(missing_ok=True)
        client_scores.file(self.folder.path, stage, dataset).unlink(missing_ok=True)

    def zero_shot(self, engine: Answering) -> dict[str, float]:
        """The base model's accuracy on every dataset (percent)."""
        names = self.setting.datasets
        self._ask(engine, State(), ZERO_SHOT, [*names, *self._general])
        return {name: self._percent(ZERO_SHOT, name) for name in names}

    def row(self, engine: Answering, state: State, stage: int, seen: Collection[str]) -> Row:
        """The accuracies after a stage (from 0), in the setting's order of datasets; None where not
        seen. The datasets that the next stage is the first to learn are asked too, and after the last
        one the general questions; `write_matrix` scores these."""
        last = self.method.once or stage == len(self.stages) - 1
        further = self._general if last and self.method.answers_any else self._next(stage)
        name = self.stage_name(stage)
        self._ask(engine, state, name, [*seen, *further])
        names = self.setting.datasets
        return [self._percent(name, one) if one in seen else None for one in names]

    def seen(self, stage: int) -> list[str]:
        """The datasets that a client has trained on by the end of a stage (from 0): a row's. What all
        clients failed to train on is not among them."""
        names = self.setting.datasets
        if self.method.once or not self.stages:
            return list(names)
        learnt = self._homes(stage + 1)
        return [name for name in names if name in learnt]

    def stage_name(self, stage: int) -> str:
        """Where a stage's predictions are kept; the base model's where a method has no stages."""
        return ZERO_SHOT if not self.stages else "1" if self.method.once else str(stage + 1)

    @property
    def _general(self) -> list[str]:
        return [GENERAL] if self.experiment.general else []

    def _next(self, stage: int) -> list[str]:
        """What the stage after this one is the first to learn, if it is to be asked."""
        if (
            self.method.once
            or not self.config.evaluation.forward_transfer
            or stage + 1 >= len(self.stages)
        ):
            return []
        seen = self.seen(stage)
        return [name for name in self.setting.seen(stage + 1) if name not in seen]

    def _ask(self, engine: Answering, state: State, stage: str, names: Collection[str]) -> None:
        """Answer what has no predictions yet; where clients have the test samples, ask them for sums."""
        if self.elsewhere:
            theirs = [name for name in names if self._tallied(name)]
            client_scores.ask(
                self.experiment, self.folder.path, engine, state, stage, theirs, self.watch
            )
            names = [name for name in names if name not in theirs]
        left = [name for name in names if not self.folder.predictions(stage, name).is_file()]
        if not left:
            return
        engine.place(state)
        parts = {name: self._chunks(name) for name in left}
        label = "zero-shot answers" if stage == ZERO_SHOT else f"answers after stage {stage}"
        with self.watch.bar(label, sum(map(len, parts.values()))) as step:
            done = 0
            step(done)
            for name, todo in parts.items():
                answers: dict[int, Answer] = {}
                for part, found in zip(todo, engine.answer(name, todo), strict=True):
                    answers |= dict(zip(part, found, strict=True))
                    done += 1
                    step(done)
                self._keep(stage, name, answers)

    def _chunks(self, name: str) -> list[list[int]]:
        return chunks(self.experiment.samples(name, "test"), self.config.evaluation.batch_size)

    def _keep(self, stage: str, name: str, answers: Mapping[int, Answer]) -> None:
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
        self._scored[stage, name] = round(score.percent, 4)

    def _tallied(self, name: str) -> bool:
        return self.elsewhere and name != GENERAL

    def _there(self, stage: str, name: str) -> bool:
        made = client_scores.file(self.folder.path, stage, name) if self._tallied(name) else None
        return (made or self.folder.predictions(stage, name)).is_file()

    def _percent(self, stage: str, name: str) -> float:
        if self._tallied(name):
            return client_scores.percent(self.folder.path, stage, name)
        if (stage, name) not in self._scored:
            self._scored[stage, name] = self._score(stage, name)
        return self._scored[stage, name]

    def _score(self, stage: str, name: str) -> float:
        rows = read_lines(self.folder.predictions(stage, name))
        samples = self.experiment.samples(name, "test")
        texts = [row["prediction"] for row in rows]
        score = scorers.score(name, texts, samples, self.config.evaluation.scoring)
        return round(score.percent, 4)

    def log(self, report: Round) -> dict[str, Any]:
        """Add a round's line to the log, and return it."""
        tokens = {one.client: nbytes({"token": one.token}) for one in report.identities}
        jobs, updates = report.jobs, report.updates
        now = time.monotonic()
        row: dict[str, Any] = {
            "stage": report.position.stage + 1,
            "round": report.position.rounds,
            "clients": [job.turn.client for job in jobs],
            "tasks": [job.turn.task.name for job in jobs],
            "samples": [update.samples for update in updates],
            "losses": [round(update.metrics["loss"], 5) for update in updates],
            "subspaces": [",".join(update.adapters) for update in updates],
            "seconds": round(now - self.clock, 3),
            "bytes_down": list(report.bytes_down),
            "bytes_up": [
                size + tokens.get(one.client, 0)
                for one, size in zip(updates, report.bytes_up, strict=True)
            ],
            "bytes_token": [tokens.get(update.client, 0) for update in updates],
        }
        if report.faults:
            row["faults"] = [asdict(fault) for fault in report.faults]
            for fault in report.faults:
                self.watch.say(f"stage {row['stage']}, round {row['round']}: {named(fault)}")
        if report.notes:
            row["notes"] = list(report.notes)
        self.clock = now
        self.folder.append_log(row)
        return row

    def write_matrix(self, zero: Mapping[str, float], rows: Sequence[Row]) -> dict[str, Any]:
        """Write `matrix.json` with the rows there are, and return it."""
        names = list(self.setting.datasets)
        last: float | None = None
        avg: float | None = None
        if rows:
            last, avg = round(metrics.last(rows), 4), round(metrics.avg(rows), 4)
        elif not self.stages:
            last = avg = round(sum(zero.values()) / len(zero), 4)
        forgetting = metrics.forgetting(rows, names) if rows else dict.fromkeys(names, 0.0)
        stages = (
            []
            if not self.stages
            else ["all"]
            if self.method.once
            else [
                " + ".join(dict.fromkeys(task.name for task in stage.tasks))
                for stage in self.stages
            ]
        )
        value = {
            "setting": self.setting.name,
            "method": self.config.method.name,
            "scoring": self.config.evaluation.scoring,
            "beta": self.config.setting.beta,
            "seed": self.config.seed,
            "datasets": names,
            "stages": stages,
            "matrix": list(rows),
            "last": last,
            "avg": avg,
            "forgetting": {name: round(points, 4) for name, points in forgetting.items()},
            "zero_shot": dict(zero),
            "chance": self._chance,
            "routing": self._routing(rows),
            "ahead": self._ahead(rows),
            "general": self._retained(),
        }
        if self.experiment.privacy.on:
            value["privacy"] = self._spent()
        write_json(self.folder.matrix, value)
        return value

    def _spent(self) -> dict[str, float | None]:
        """Epsilon of the rounds committed so far; for tokens, of the client that has sent the most. Who
        is drawn is a secret only where the seed is taken to be one, and used for it."""
        setting, plan = self.experiment.training_setting, self.experiment.plan
        privacy = self.experiment.privacy
        position = self.folder.position() or Position()
        done = [rounds for stage in plan[: position.stage] for rounds in stage]
        done += plan[position.stage][: position.rounds] if plan else []
        turns = [turn for part in done for turn in part]
        met = {(turn.client, turn.stage, turn.task.name) for turn in turns}
        most = max(Counter(client for client, *_ in met).values(), default=0)
        tokens = most if self.method.identity else 0
        secret = privacy.seeded_noise and self.config.setting.sampling == "derived"
        return epsilon(privacy, exposures(setting, turns, secret), tokens)

    @cached_property
    def _chance(self) -> dict[str, float]:
        samples, mode = self.experiment.samples, self.config.evaluation.scoring
        if self.elsewhere:  # the best constant answer is known to whoever has the test set
            return {}
        return {
            name: round(
                scorers.chance(name, samples(name, "train"), samples(name, "test"), mode), 4
            )
            for name in self.setting.datasets
        }

    def _ahead(self, rows: Sequence[Row]) -> dict[str, float]:
        """Accuracy on each dataset right before it is first learned (percent): its difference from
        zero-shot is forward transfer (Lopez-Paz and Ranzato 2017)."""
        return {
            name: self._percent(self.stage_name(stage), name)
            for stage in range(len(rows))
            for name in self._next(stage)
            if self._there(self.stage_name(stage), name)
        }

    def _retained(self) -> dict[str, float]:
        """Accuracy on the general questions before any training and after all of it (percent)."""
        last = 0 if self.method.once else len(self.stages) - 1
        stages = {"before": ZERO_SHOT} | ({"after": self.stage_name(last)} if self.stages else {})
        return {
            when: self._percent(stage, name)
            for when, stage in stages.items()
            for name in self._general
            if self._there(stage, name)
        }

    def _homes(self, until: int | None = None) -> dict[str, set[str]]:
        """The adapters that each dataset has trained, by the end of a stage (from 1; none: so far)."""
        tasks = [task for stage in self.stages for task in stage.tasks]
        return homes(self.folder.trainers(until), tasks)

    def _routing(self, rows: Sequence[Row]) -> dict[str, float]:
        """Percent of test prompts routed to a subspace that their dataset trained, at the last row."""
        if not rows or not self.method.identity or self.elsewhere:
            return {}
        known, stage = self._homes(), str(len(rows))
        return {
            name: round(
                routing(read_lines(self.folder.predictions(stage, name)), known.get(name, ())), 4
            )
            for name, value in zip(self.setting.datasets, rows[-1], strict=True)
            if value is not None
        }
