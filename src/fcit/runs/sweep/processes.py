"""Run a sweep: each run in a process of its own, the longest first."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from fcit.engines.workers import cores, gpus
from fcit.files import private, write_json
from fcit.recipe.config import Config
from fcit.rounds.runfolder import RunFolder
from fcit.runs.session import Session
from fcit.runs.sweep.plan import SweepRun
from fcit.runs.sweep.status import Clock, RunStatus, clock, same_data, survey
from fcit.types import Turn
from fcit.watch import Silent, Watch

GRACE = 10.0
"""Seconds that a stopped run has to end by itself."""


def run(runs: Sequence[SweepRun], jobs: int = 0, watch: Watch | None = None) -> list[SweepRun]:
    """Run what is not finished, the longest first, `jobs` at a time; return the runs that failed, and
    those that were left alone because another process works on them.

    jobs = 0: one per GPU, without GPUs one per core, and one where a recipe names a GPU or a device map.
    If several run at a time, each has one worker. All recipes are checked and all data is made before
    the first run starts (FcitError). KeyboardInterrupt stops the runs; the next call continues them.
    """
    watch = watch or Silent()
    todo = _works([status for status in survey(runs) if not status.finished], watch)
    if not todo:
        return []
    configs = [work.status.config for work in todo]
    slots = _slots(configs, min(jobs, len(todo)))[: len(todo)]
    todo.sort(key=lambda work: work.left)  # taken from its end
    waiting = [work.left for work in todo]
    total, failed = sum(work.total for work in todo), list[SweepRun]()
    running: dict[int, _Child] = {}
    with watch.bar(f"{len(todo)} runs, percent", 100) as step:
        try:
            while todo or running:
                for slot, gpu in enumerate(slots):
                    if todo and slot not in running:
                        work = todo.pop()
                        if Session(work.status.config, work.status.run.folder, Silent()).finished:
                            continue  # another sweep did it meanwhile
                        if RunFolder(work.status.run.folder).in_use:
                            failed.append(work.status.run)
                            watch.say(f"{failed[-1]}: another fcit is working on it; left alone")
                        else:
                            running[slot] = _start(work, len(slots), gpu)
                time.sleep(0.5)
                for slot, child in list(running.items()):
                    if child.process.poll() is not None:
                        del running[slot]
                        failed += _end(child, watch)
                begun = sum(child.work.left for child in running.values())
                step(100 - 100 * (sum(waiting[: len(todo)]) + begun) / total)
        finally:
            _stop(list(running.values()))
    return failed


@dataclass(frozen=True)
class _Work:
    """A run that is not finished, and how much training it is."""

    status: RunStatus
    rounds: tuple[tuple[int, ...], ...]
    """Training samples of every round, [stage][round]."""

    @property
    def total(self) -> int:
        return 1 + sum(map(sum, self.rounds))

    @property
    def left(self) -> int:
        """What is left of it now."""
        position = RunFolder(self.status.run.folder).position()
        if position is None:
            return self.total
        later = sum(map(sum, self.rounds[position.stage + 1 :]))
        return 1 + later + sum(self.rounds[position.stage][position.rounds :])


@dataclass(frozen=True)
class _Child:
    """A run in its process."""

    work: _Work
    process: subprocess.Popen[bytes]
    clock: Clock
    began: float
    log_start: int
    """The size of the log when this process began to write to it."""


def _works(statuses: Iterable[RunStatus], watch: Watch) -> list[_Work]:
    """Make or check the data of every run, and count the training samples of every round."""
    counts: dict[str, dict[str, list[int]]] = {}
    works: list[_Work] = []
    for status in statuses:
        session = Session(status.config, status.run.folder, watch)
        config, experiment = status.config, session.experiment
        minimum = config.federation.min_samples
        data = (experiment.root, experiment.folder.images, config.data, config.seed, minimum)
        asked = (config.evaluation.scoring, config.evaluation.limit)
        key = repr((data, asked, config.setting, experiment.training_setting))
        if key not in counts:
            experiment.prepare(watch)
            experiment.check_ids()
            counts[key] = experiment.counts(experiment.training_setting)
        same_data(session)
        epochs, held = experiment.training_setting.epochs, counts[key]
        rounds = tuple(
            tuple(round(epochs * sum(_samples(turn, held) for turn in turns)) for turns in stage)
            for stage in experiment.plan
        )
        works.append(_Work(status, rounds))
    return works


def _samples(turn: Turn, counts: Mapping[str, Sequence[int]]) -> int:
    return sum(counts[dataset][turn.client] for dataset in turn.task.datasets)


def _slots(parts: Sequence[Config], jobs: int) -> list[str]:
    """The GPU of each simultaneous run, "" where the run chooses itself."""
    import torch

    devices = {config.model.device for config in parts}
    spread = any(config.model.device_map for config in parts)
    here = gpus() if devices != {"cpu"} else []
    if here and not spread and devices <= {"auto", "cuda"}:
        return [here[at % len(here)] for at in range(jobs or len(here))]
    if not jobs and not here and (devices == {"cpu"} or not torch.backends.mps.is_available()):
        jobs = cores() // max(config.training.threads for config in parts)
    return [""] * max(1, jobs)


def _start(work: _Work, jobs: int, gpu: str) -> _Child:
    run = work.status.run
    changes = [*(["federation.workers=1"] if jobs > 1 else []), *run.changes]
    words = ["run", str(run.recipe), "--method", run.file or run.method, "--out", str(run.folder)]
    words += [word for change in changes for word in ("--set", change)]
    words += ["--resume"] if run.folder.is_dir() else []
    before = clock(run)
    now = replace(before, starts=before.starts + 1, jobs=jobs, done=False)
    write_json(run.clock, asdict(now))
    with private(run.log.parent), run.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fcit", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}),
        )
        return _Child(work, process, now, time.monotonic(), log.tell())


def _end(child: _Child, watch: Watch) -> list[SweepRun]:
    """Stop a run's clock and report how it ended; return it if it failed."""
    run, code = child.work.status.run, child.process.returncode
    seconds = round(child.clock.seconds + time.monotonic() - child.began, 1)
    write_json(run.clock, asdict(replace(child.clock, seconds=seconds, done=code == 0)))
    if code == 0:
        watch.say(f"{run}: {seconds:.0f} seconds")
        return []
    text = run.log.read_bytes()[child.log_start :].decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("fcit: ") for line in lines if line.startswith("fcit: ")]
    last = (errors or lines or ["it printed nothing"])[-1]
    watch.say(f"{run}: failed ({code}): {last}; its whole output is in {run.log}")
    return [run]


def _stop(children: Sequence[_Child]) -> None:
    """End the runs. Ctrl-C reaches them too, so they first get a second to end by themselves."""
    until = time.monotonic() + 1
    while time.monotonic() < until and any(child.process.poll() is None for child in children):
        time.sleep(0.05)
    for child in children:
        child.process.terminate()
    for child in children:
        try:
            child.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        _end(child, Silent())
