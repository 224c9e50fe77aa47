"""Runs of a sweep in processes of their own, the longest first."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from fcit.engines.local import cores, gpus
from fcit.files import write_json
from fcit.recipe.config import Config
from fcit.rounds.runfolder import RunFolder
from fcit.rounds.server import Position
from fcit.runs.session import Session
from fcit.runs.sweep.plan import Run
from fcit.runs.sweep.status import Clock, Status, clock, same_data, survey
from fcit.watch import Silent, Watch

GRACE = 10.0
"""Seconds a stopped run has to end by itself."""


def run(runs: Sequence[Run], jobs: int = 0, watch: Watch | None = None) -> list[Run]:
    """Run what is not finished, the longest first, `jobs` at once; return those that failed.

    jobs = 0: one a GPU, else as many as the cores carry. Where several run at once each has one worker.
    Everything is checked, and all data made, before the first one starts: FcitError says what is wrong.
    On KeyboardInterrupt the runs are stopped; the next call goes on with them.
    """
    watch = watch or Silent()
    todo = _works([status for status in survey(runs) if not status.finished], watch)
    if not todo:
        return []
    places = _places([work.status.config for work in todo], jobs)[: len(todo)]
    todo.sort(key=lambda work: work.left)  # taken from its end
    ended = sum(work.total - work.left for work in todo)
    total, failed = sum(work.total for work in todo), list[Run]()
    running: dict[int, _Child] = {}
    with watch.bar(f"{len(todo)} runs, percent", 100) as step:
        try:
            while todo or running:
                for place in range(len(places)):
                    if todo and place not in running:
                        running[place] = _start(todo.pop(), len(places), places[place])
                time.sleep(0.2)
                for place, child in list(running.items()):
                    if child.process.poll() is not None:
                        del running[place]
                        ended += child.work.left
                        failed += _end(child, watch)
                now = sum(child.work.left - child.work.now_left() for child in running.values())
                step(100 * (ended + now) / total)
        finally:
            _stop(list(running.values()))
    return failed


@dataclass(frozen=True)
class _Work:
    """What is left of a run: expected training samples of every round, [stage][round]."""

    status: Status
    rounds: tuple[tuple[int, ...], ...]

    @property
    def total(self) -> int:
        return 1 + sum(map(sum, self.rounds))

    @property
    def left(self) -> int:
        """What was left when the sweep began."""
        return self._after(self.status.position)

    def now_left(self) -> int:
        return self._after(RunFolder(self.status.run.folder).position())

    def _after(self, position: Position | None) -> int:
        if position is None:
            return self.total
        later = sum(map(sum, self.rounds[position.stage + 1 :]))
        return 1 + later + sum(self.rounds[position.stage][position.rounds :])


@dataclass(frozen=True)
class _Child:
    """A run at work; its log is its own from the byte `said` on."""

    work: _Work
    process: subprocess.Popen[bytes]
    before: Clock
    now: Clock
    began: float
    said: int


def _works(statuses: Iterable[Status], watch: Watch) -> list[_Work]:
    """Make or check the data of every run, and measure how much each has to do with it."""
    made: dict[str, dict[str, list[int]]] = {}
    found: list[_Work] = []
    for status in statuses:
        session = Session(status.config, status.run.folder, watch)
        config, experiment = status.config, session.experiment
        minimum = config.federation.min_samples
        data = (experiment.root, experiment.images, config.data, config.seed, minimum)
        asked = (config.evaluation.scoring, config.evaluation.limit)
        key = repr((data, asked, config.setting, experiment.training_setting))
        if key not in made:
            experiment.prepare(watch)
            experiment.check_ids()
            made[key] = experiment.counts(experiment.training_setting)
        same_data(session)
        epochs = experiment.training_setting.epochs
        rounds = tuple(
            tuple(
                round(
                    epochs
                    * sum(
                        made[key][one][turn.client] for turn in turns for one in turn.task.datasets
                    )
                )
                for turns in stage
            )
            for stage in experiment.plan
        )
        found.append(_Work(status, rounds))
    return found


def _places(parts: Sequence[Config], jobs: int) -> list[str]:
    """The GPU of each of the simultaneous runs, "" where it is left to the run itself."""
    import torch

    devices = {config.model.device for config in parts}
    if devices <= {"auto", "cuda"} and (here := gpus()):
        return [here[at % len(here)] for at in range(jobs or len(here))]
    if not jobs and (devices == {"cpu"} or not torch.backends.mps.is_available()):
        jobs = cores() // max(config.training.threads for config in parts)
    return [""] * max(1, jobs)


def _start(work: _Work, jobs: int, gpu: str) -> _Child:
    one = work.status.run
    changes = [*(["federation.workers=1"] if jobs > 1 else []), *one.changes]
    words = ["run", str(one.recipe), "--method", one.method, "--out", str(one.folder)]
    words += [word for change in changes for word in ("--set", change)]
    words += ["--resume"] if one.folder.is_dir() else []
    before = clock(one)
    now = replace(before, starts=before.starts + 1, jobs=jobs, done=False)
    write_json(one.clock, asdict(now))
    with one.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fcit.cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}),
        )
        return _Child(work, process, before, now, time.monotonic(), log.tell())


def _end(child: _Child, watch: Watch) -> list[Run]:
    """Stop a run's clock and say how it ended; the run where it failed."""
    one, code = child.work.status.run, child.process.returncode
    seconds = round(child.before.seconds + time.monotonic() - child.began, 1)
    write_json(one.clock, asdict(replace(child.now, seconds=seconds, done=code == 0)))
    if code == 0:
        watch.say(f"{one}: {seconds:.0f} seconds")
        return []
    text = one.log.read_bytes()[child.said :].decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    own = [line.removeprefix("fcit: ") for line in lines if line.startswith("fcit: ")]
    last = (own or lines or ["it said nothing"])[-1]
    watch.say(f"{one}: failed ({code}): {last}; all it said is in {one.log}")
    return [one]


def _stop(children: Sequence[_Child]) -> None:
    """End what still runs. Ctrl-C reaches the runs too: one that heard it is left to end by itself."""
    until = time.monotonic() + 1
    while time.monotonic() < until and any(one.process.poll() is None for one in children):
        time.sleep(0.05)
    for one in children:
        one.process.terminate()
    for one in children:
        try:
            one.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()
        _end(one, Silent())
