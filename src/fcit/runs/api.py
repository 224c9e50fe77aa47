"""The Python interface, which the command line uses too: `fcit.run(config)` and `fcit.load(folder)`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from html import escape
from itertools import zip_longest
from pathlib import Path
from threading import Lock
from typing import Any

from fcit.files import clean, home
from fcit.recipe import config as configs
from fcit.recipe.config import Config
from fcit.rounds.client import Data
from fcit.rounds.evaluate import Answer
from fcit.rounds.runfolder import RunFolder
from fcit.runs.engine import on_device
from fcit.runs.provenance import check_models
from fcit.runs.session import Session
from fcit.types import FcitError, Sample, State, naming
from fcit.watch import Silent, Terminal, Watch
from fcit.weights import threads
from fcit.worker.experiment import Experiment
from fcit.worker.model import ModelWorker

_running = Lock()
"""Held by the run that is going on: torch's threads and the umask are those of the whole process."""

_answering = Lock()
"""Held while a run answers, for the same reason: answers of several threads come one after another."""


def run(
    config: Config | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    resume: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Run an experiment and return its run.

    config: a recipe's path, a table of the same form, or a `Config`. out: the run's folder (default:
    `runs/<setting>-<method>-seed<seed>`). resume: continue the run in that folder. watch: what shows the
    progress (default: lines in a notebook, nothing elsewhere).
    Raises FcitError on every user error.
    """
    if isinstance(config, Config):  # `replace` checks nothing
        try:
            config = configs.to_table(config)
        except TypeError as error:
            raise FcitError(f"config: {error}") from None
    table = isinstance(config, Mapping)
    config = configs.validate(config) if table else configs.load(home(config))
    name = f"{config.setting.name}-{config.method.name}-seed{config.seed}"
    folder = home(out) if out else Path("runs") / name
    session = Session(config, folder, watch or (Terminal() if _in_notebook() else Silent()))
    if not _running.acquire(blocking=False):
        raise FcitError(f"{folder}: another run is going on in this process; start each in its own")
    try:
        session.open(resume)
        session.run()
    finally:
        _running.release()
    return Run(folder)


def load(folder: str | Path, device: str = "") -> Run:
    """An existing run. device: where its model answers ("cpu", "cuda:1"), instead of on the recipe's
    `model.device`. Raises FcitError if the folder holds none."""
    run = Run(folder)
    files = RunFolder(run.folder)  # the folder as the caller wrote it, for errors
    files.require()
    run.config = on_device(run.config, device)
    files.check(run.experiment.plan, run.experiment.method.single_row)
    return run


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


class Run:
    """A run on disk: its results and its trained model."""

    def __init__(self, folder: str | Path):
        self.folder = home(folder)
        self.files = RunFolder(self.folder.absolute())  # a notebook may go to another folder

    def _cells(self) -> list[list[str]]:
        """The accuracies (percent) of every stage, with Last and Avg."""
        if not self.files.matrix.is_file():
            return [["no results yet"]]
        found, rows = self.results, self.files.rows()
        done, every = len(rows), len(found["stages"])
        unfinished = f" (unfinished: {done} of {every} stages)" if done < every else ""
        stages = [f"{at} {name}" for at, name in enumerate(found["stages"][:done], 1)]
        rows = [*rows, list(found["zero_shot"].values())]
        return [
            [f"{found['method']}, accuracy %", *found["datasets"]],
            *(
                [name, *("" if cell is None else f"{cell:.2f}" for cell in row)]
                for name, row in zip([*stages, "zero-shot"], rows, strict=True)
            ),
            [
                "Last, Avg" + unfinished,
                *(f"{found[key]:.2f}" for key in ("last", "avg") if found[key] is not None),
            ],
        ]

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        return "\n".join([f"Run({str(self.folder)!r})", *lines])

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self._cells())
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    @cached_property
    def config(self) -> Config:
        """The configuration that the run was made with."""
        return configs.load_run(self.files.config)

    @cached_property
    def experiment(self) -> Experiment:
        """Its data, plan and method."""
        return Experiment(self.config)

    @property
    def results(self) -> dict[str, Any]:
        """The contents of `matrix.json`: the accuracy matrix, Last, Avg, forgetting, ..."""
        return self.files.read(self.files.matrix)

    def generate(self, image: str | Path, prompt: str) -> str:
        """The trained model's answer to a prompt about an image file, routed as in evaluation."""
        return self.answer(image, prompt).text

    def answer(self, image: str | Path, prompt: str) -> Answer:
        """The answer with the activation factors and similarities that it was routed by. Raises FcitError
        for a prompt that is no text (see `files.clean`)."""
        with naming("the prompt"):
            sample = Sample("", "", str(image), clean(prompt), ("",))
        with _answering, threads(self.config.training.threads):
            return self.worker.answer(Data([sample], [home(image)]))[0]

    @cached_property
    def state(self) -> State:
        """The run's last committed state as of the first use; `load` again for a later one. Empty for a
        reference point that trains nothing."""
        if self.experiment.plan and self.files.position() is None:
            raise FcitError(f"{self.folder}: this run has no state yet; finish it with --resume")
        return self.files.state()[0]

    @property
    def trained_by(self) -> dict[str, list[str]]:
        """For every adapter the tasks whose clients trained it, the most frequent first."""
        trainers = self.files.trainers()
        return {
            name: [task for task, _ in trainers.get(name, Counter[str]()).most_common()]
            for name in self.state.adapters
        }

    @cached_property
    def worker(self) -> ModelWorker:
        """The run's model with its state in place, in this process; loaded on first use."""
        return self.load_worker(self.config)

    def give_worker(self) -> ModelWorker:
        """The worker, for somebody who changes its model; the run loads it again when it needs it."""
        with _answering:
            worker = self.worker
            del self.worker
        return worker

    def load_worker(self, config: Config) -> ModelWorker:
        """The model of another configuration of this run, with the run's state in place. Raises FcitError
        where the base model or the encoder is not the one that the run was made with."""
        check_models(self.files.table().get("versions", {}), self.experiment, self.folder)
        worker = ModelWorker(config)
        worker.place(self.state)
        return worker
