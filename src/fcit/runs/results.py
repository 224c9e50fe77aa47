"""A run's results: test answers scored into rows of the accuracy matrix, and the files that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcit.aggregation.privacy import draws_are_secret, epsilon
from fcit.benchmark import metrics
from fcit.benchmark.rules import Accuracy
from fcit.rounds.evaluate import Answer, adapters_by_dataset, chooses, chunks, routing
from fcit.rounds.records import Prediction
from fcit.rounds.runfolder import ZERO_SHOT, RunFolder
from fcit.rounds.server import Position
from fcit.runs import client_scores
from fcit.runs.uncovered import uncovered
from fcit.types import FcitError, State
from fcit.watch import Watch
from fcit.worker.experiment import Experiment

if TYPE_CHECKING:
    from fcit.runs.engine import AnyEngine

Row = list[float | None]
"""Accuracies (percent) in the setting's order of datasets; None where a dataset was not seen yet."""


class Results:
    """Measures accuracies and writes one run's predictions and matrix."""

    def __init__(self, experiment: Experiment, folder: RunFolder, watch: Watch):
        self.experiment, self.folder, self.watch = experiment, folder, watch
        self.config, self.method = experiment.config, experiment.method
        self.setting = experiment.setting
        self.stages = experiment.training_setting.stages
        self._percents: dict[tuple[str, str], float] = {}
        self._stale: set[tuple[str, str]] = set()

    # -- answers -------------------------------------------------------------------------------------

    def zero_shot(self, engine: AnyEngine) -> dict[str, float]:
        """The base model's accuracy on every dataset (percent)."""
        names = self.setting.datasets
        self._ask(engine, State(), ZERO_SHOT, [*names, *self._general])
        return {name: self._percent(ZERO_SHOT, name) for name in names}

    def row(self, engine: AnyEngine, state: State, stage: int) -> Row:
        """The accuracies after a stage (from 0).

        Also asked, for `write_matrix`: the datasets that the next stage is the first to train on; after
        the last stage the general questions.
        """
        last = self.method.single_row or stage == len(self.stages) - 1
        further = self._general if last and self.method.answers_general else self._next(stage)
        name, seen = self.stage_name(stage), self.seen(stage)
        self._ask(engine, state, name, [*seen, *further])
        return [
            self._percent(name, dataset) if dataset in seen else None
            for dataset in self.setting.datasets
        ]

    def seen(self, stage: int) -> list[str]:
        """The datasets that at least one client has trained on by the end of a stage (from 0)."""
        names = self.setting.datasets
        if self.method.single_row or not self.stages or self.folder.imported:
            return list(names)
        trained = self._trained_adapters(stage + 1)
        return [name for name in names if name in trained]

    def stage_name(self, stage: int) -> str:
        """The folder name of a stage's predictions."""
        return ZERO_SHOT if not self.stages else "1" if self.method.single_row else str(stage + 1)

    def ask_again(self, stage: str, dataset: str) -> None:
        """Have `row` or `zero_shot` ask a dataset's questions after a stage again. The old answers (or
        clients' scores) stay until the new ones are there."""
        self._percents.pop((stage, dataset), None)
        self._stale.add((stage, dataset))

    @property
    def _general(self) -> list[str]:
        return list(self.experiment.folder.general)

    def _next(self, stage: int) -> list[str]:
        """The datasets that the next stage is the first to train on, if the recipe wants them asked."""
        last = self.method.single_row or stage + 1 >= len(self.stages)
        if last or not self.config.evaluation.forward_transfer:
            return []
        seen = self.seen(stage)
        return [name for name in self.setting.seen(stage + 1) if name not in seen]

    def _by_clients(self, dataset: str) -> bool:
        """Whether clients score their own test samples of a dataset and the server has none."""
        return self.config.evaluation.where == "clients" and dataset not in self._general

    def _file(self, stage: str, dataset: str) -> Path:
        """The file with the predictions, or with the clients' scores."""
        if self._by_clients(dataset):
            return client_scores.file(self.folder.path, stage, dataset)
        return self.folder.predictions(stage, dataset)

    def _ask(self, engine: AnyEngine, state: State, stage: str, names: Collection[str]) -> None:
        """Answer the test sets whose results are not there yet."""
        kept = {name for name in names if self._file(stage, name).is_file()}
        missing = [name for name in names if name not in kept or (stage, name) in self._stale]
        if not missing:
            return
        engine.place(state)
        for name in filter(self._by_clients, missing):
            clients = range(self.setting.clients)
            needed = client_scores.needed(self.config.federation.min_clients, self.setting)
            scores = client_scores.ask(engine, name, clients, self.watch, needed)
            self.folder.write(self._file(stage, name), scores)
        size = self.config.evaluation.batch_size
        todo = {
            name: chunks(self.experiment.samples(name, "test"), size)
            for name in missing
            if not self._by_clients(name)
        }
        label = "zero-shot answers" if stage == ZERO_SHOT else f"answers after stage {stage}"
        with self.watch.bar(label, sum(map(len, todo.values()))) as step:
            done = 0
            for name, batches in todo.items():
                answers: dict[int, Answer] = {}
                step(done)
                for batch, replies in zip(batches, engine.answer(name, batches), strict=True):
                    answers |= dict(zip(batch, replies, strict=True))
                    done += 1
                    step(done)
                self._keep(stage, name, [answers[i] for i in range(len(answers))])
        self._stale -= {(stage, name) for name in missing}

    def _keep(self, stage: str, name: str, answers: Sequence[Answer]) -> None:
        """Score a dataset's answers and write its predictions."""
        samples = self.experiment.samples(name, "test")
        score = self._score(name, [answer.text for answer in answers])
        rows = [
            {
                "question_id": sample.id,
                "image": sample.image,
                "prompt": sample.prompt,
                "prediction": answer.text,
                "truth": sample.answers[0] if len(sample.answers) == 1 else list(sample.answers),
                "score": round(points, 4),
                "activation": {key: round(part, 6) for key, part in answer.activation.items()},
                "similarity": {key: round(part, 6) for key, part in answer.similarity.items()},
            }
            for sample, answer, points in zip(samples, answers, score.each, strict=True)
        ]
        self.folder.keep_answers(stage, name, rows)
        self._percents[stage, name] = round(score.percent, 4)

    def _score(self, name: str, texts: Sequence[str]) -> Accuracy:
        return self.experiment.score(name, texts, self.experiment.samples(name, "test"))

    def answers(self, stage: str, name: str) -> list[Prediction]:
        """A dataset's answers after a stage. Raises FcitError where its test samples are others now."""
        rows = self.folder.answers(stage, name)
        asked = [(row.question_id, row.prompt, tuple(row.truth)) for row in rows]
        now = self.experiment.samples(name, "test")
        if asked != [(sample.id, sample.prompt, sample.answers) for sample in now]:
            raise FcitError(
                f"{self.folder.predictions(stage, name)}: answers other questions or truths than "
                f"{self.experiment.root} has; choose another --out"
            )
        return rows

    def _percent(self, stage: str, name: str) -> float:
        """A dataset's accuracy after a stage, from its file; read once."""
        if (stage, name) not in self._percents:
            file = self._file(stage, name)
            if self._by_clients(name):
                percent = client_scores.percent(self.folder, file)
            else:
                said = [row.prediction for row in self.answers(stage, name)]
                percent = self._score(name, said).percent
            self._percents[stage, name] = round(percent, 4)
        return self._percents[stage, name]

    # -- the matrix -----------------------------------------------------------------------------------

    def write_matrix(
        self, zero: Mapping[str, float], rows: Sequence[Row], evaluated: str = ""
    ) -> dict[str, Any]:
        """Write `matrix.json` with the rows measured so far, and return it. evaluated: what the last row
        was computed in, where that is not what the run was."""
        names = list(self.setting.datasets)
        last: float | None = None
        avg: float | None = None
        if rows:
            last, avg = round(metrics.last(rows), 4), round(metrics.avg(rows), 4)
        elif not self.stages:
            last = avg = round(sum(zero.values()) / len(zero), 4)
        forgetting = metrics.forgetting(rows, names) if rows else {}
        stages = [
            " + ".join(dict.fromkeys(task.name for task in stage.tasks)) for stage in self.stages
        ]
        value = {
            "setting": self.setting.name,
            "method": self.config.method.name,
            "scoring": self.config.evaluation.scored,
            "beta": self.config.setting.beta,
            "seed": self.config.seed,
            "datasets": names,
            "stages": ["all"] if stages and self.method.single_row else stages,
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
        if self.config.evaluation.where == "clients":
            value["scored_by"] = client_scores.counts(self.folder)
        if evaluated:
            value["evaluated"] = evaluated
        if self.config.privacy.on:
            value["privacy"] = self._spent()
        self.folder.write(self.folder.matrix, value)
        return value

    def _spent(self) -> dict[str, Any]:
        """Epsilon of the rounds committed so far, and what it does not cover."""
        setting, plan = self.experiment.training_setting, self.experiment.plan
        privacy = self.config.privacy
        position = self.folder.position() or Position()
        rounds = [turns for stage in plan[: position.stage] for turns in stage]
        rounds += plan[position.stage][: position.rounds] if plan else []
        turns = [turn for part in rounds for turn in part]
        identified = self.method.identity is not None
        # Asked for again, a token with fresh noise costs as much as another; seeded, it is the same.
        per = "task" if privacy.seeded_noise else self.method.asked_per
        stages, rounds_too = per != "task", per == "round"
        sent = {(t.client, t.task.name, stages * t.stage, rounds_too * t.round) for t in turns}
        tokens = max(Counter(client for client, *_ in sent).values(), default=0)
        manifest = self.folder.manifest()
        named = identified or bool(manifest and manifest.clients)
        derived = self.config.setting.sampling == "derived"
        secret = draws_are_secret(privacy, setting, derived, named)
        spent = epsilon(privacy, setting, turns, tokens if identified else 0, secret)
        return spent | {"uncovered": uncovered(self.config, self.folder)}

    @cached_property
    def _chance(self) -> dict[str, float]:
        """The score of the best constant answer; unknown where only clients have the test sets."""
        return {
            name: round(self.experiment.chance(name), 4)
            for name in self.setting.datasets
            if not self._by_clients(name)
        }

    def _ahead(self, rows: Sequence[Row]) -> dict[str, float]:
        """Accuracy on each dataset right before it is first trained on (percent): its difference from
        zero-shot is forward transfer (Lopez-Paz and Ranzato 2017)."""
        asked = [
            (name, self.stage_name(stage), name)
            for stage in range(len(rows))
            for name in self._next(stage)
        ]
        return self._measured("ahead", asked)

    def _retained(self) -> dict[str, float]:
        """Accuracy on the general questions before any training and after all of it (percent)."""
        last = 0 if self.method.single_row else len(self.stages) - 1
        stages = {"before": ZERO_SHOT} | ({"after": self.stage_name(last)} if self.stages else {})
        asked = [(when, stage, name) for when, stage in stages.items() for name in self._general]
        return self._measured("general", asked)

    def _measured(self, kind: str, asked: Iterable[tuple[str, str, str]]) -> dict[str, float]:
        """Mean accuracies by a key of each (key, stage, dataset), where there are results."""
        measured: dict[str, list[float]] = {}
        for key, stage, name in asked:
            if self._file(stage, name).is_file():
                measured.setdefault(key, []).append(self._percent(stage, name))
            else:
                self.folder.require_unmeasured(kind, key, self._file(stage, name))
        return {key: round(sum(parts) / len(parts), 4) for key, parts in measured.items()}

    def _trained_adapters(self, until: int | None = None) -> dict[str, set[str]]:
        """The adapters that a dataset's clients trained by the end of a stage (from 1; default: now)."""
        tasks = [task for stage in self.stages for task in stage.tasks]
        return adapters_by_dataset(self.folder.trainers(until), tasks)

    def _routing(self, rows: Sequence[Row]) -> dict[str, float]:
        """Percent of test prompts routed to a subspace that their dataset trained, at the last row."""
        if not rows or not chooses(self.method) or self.folder.imported:
            return {}
        trained, stage = self._trained_adapters(), str(len(rows))
        cells = zip(self.setting.datasets, rows[-1], strict=True)
        names = [n for n, value in cells if value is not None and not self._by_clients(n)]
        shares = {n: routing(self.folder.answers(stage, n), trained.get(n, ())) for n in names}
        return {name: round(share, 4) for name, share in shares.items() if share is not None}
