"""The local engine: the same bits for any number of workers, and an end to every failure."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

import zygote
from fcit.engines import workers
from fcit.engines.local import LocalEngine
from fcit.engines.workers import WorkerDiedError, WorkerProcess
from fcit.methods.finetune import Finetune
from fcit.recipe.config import Config, validate
from fcit.types import Fault, FcitError, Job, State, Turn
from fcit.weights import flatten
from fcit.worker.experiment import Experiment


class Dying:
    """A worker whose process is killed at its next request."""

    def ask(self, *request: object) -> None:
        raise WorkerDiedError("crash", "its worker process exited with status -9 (out of memory?)")

    def close(self) -> None:
        pass


CHUNKS = [[0, 3, 5], [1], [2, 4]]


@pytest.fixture(scope="module")
def broken(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the suite to do damage to."""
    root = tmp_path_factory.mktemp("broken") / "mini"
    shutil.copytree(suite, root)
    return root


@pytest.fixture(scope="module")
def config(table: dict, broken: Path) -> Config:
    changed = copy.deepcopy(table)
    changed["data"]["root"] = str(broken)
    changed["data"]["train"] = 24
    return validate(changed)


def test_a_worker_that_dies_outside_a_turn_ends_in_one_line(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalEngine(config, 1) as engine:
        monkeypatch.setattr(engine, "workers", [Dying()])
        with pytest.raises(FcitError, match=r"out of memory.*federation\.workers=1"):
            engine.place(State({}))
    monkeypatch.setattr(LocalEngine, "_start_worker", lambda *_: Dying().ask())
    with pytest.raises(FcitError, match=r"out of memory.*federation\.workers=1"):
        LocalEngine(config, 2)


def test_workers_start_cold(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests' workers are forked from a process that has imported everything already."""
    monkeypatch.setenv(zygote.COLD, "1")
    config = replace(config, federation=replace(config.federation, deadline=600.0))
    with LocalEngine(config, 1) as engine:  # with a deadline one worker is another process too
        assert list(engine.start().adapters) == []
        (process,) = processes(engine)
        assert process.pid not in {pid for pid, _ in zygote.running()}


@pytest.fixture(scope="module")
def spoilt(config: Config, broken: Path) -> tuple[Turn, Path]:
    """A turn (of the second stage), and the one image of its client that was cut short."""
    experiment = Experiment(config)
    turn = experiment.plan[1][0][1]
    image = Path(experiment.data(turn).images[0])
    assert image.is_relative_to(broken)
    image.write_bytes(image.read_bytes()[:60])
    return turn, image


@pytest.fixture(scope="module")
def two(config: Config, spoilt) -> Iterator[LocalEngine]:
    with LocalEngine(config, 2) as engine:
        yield engine


@pytest.fixture(scope="module")
def one(config: Config, spoilt) -> Iterator[LocalEngine]:
    with LocalEngine(config, 1) as engine:
        yield engine


def jobs(engine: LocalEngine, turns: list[Turn]) -> list[Job]:
    method = Finetune()
    state = method.open(engine.start(), "0")
    return [Job(turn, method.send(state, turn)) for turn in turns]


def same(a: State, b: State) -> bool:
    mine, theirs = flatten(a), flatten(b)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def processes(engine: LocalEngine) -> list:
    return [worker.process for worker in engine.workers if isinstance(worker, WorkerProcess)]


def test_one_worker_is_this_process_and_two_are_two_others(
    one: LocalEngine, two: LocalEngine
) -> None:
    assert not processes(one)
    others = {process.pid for process in processes(two)}
    assert len(others - {os.getpid()}) == 2
    if zygote.possible():  # a worker that starts cold costs five CPU seconds, and tests start many
        assert others <= {pid for pid, _ in zygote.running()}


def test_tokens_and_updates_have_the_same_bits(
    one: LocalEngine, two: LocalEngine, config: Config
) -> None:
    turns = Experiment(config).plan[0][0]
    assert same(one.start(), two.start())
    tokens = [
        {got.client: (got.token, got.samples) for got in engine.identify(turns)}
        for engine in (one, two)
    ]
    assert tokens[0].keys() == tokens[1].keys() == {turn.client for turn in turns}
    for client, (token, samples) in tokens[0].items():
        assert torch.equal(token, tokens[1][client][0])
        assert samples == tokens[1][client][1]
    ticks: list[int] = []
    two.tick = lambda: ticks.append(1)
    updates = [
        {update.client: update for update in engine.run(jobs(engine, turns))}
        for engine in (one, two)
    ]
    assert len(ticks) == len(turns) == len(updates[0])
    for client, update in updates[0].items():
        other = updates[1][client]
        assert same(State(update.adapters, update.extras), State(other.adapters, other.extras))
        assert (update.samples, update.metrics) == (other.samples, other.metrics)
    assert all(found.memory == {} for part in updates for found in part.values())
    assert not one.memory and not two.memory
    trained = updates[0][turns[0].client].adapters["0"]
    blank = one.start().extras["blank"]
    assert any(not torch.equal(trained[key], blank[key]) for key in blank)


def test_answers_are_the_same_and_in_the_order_of_the_chunks(
    one: LocalEngine, two: LocalEngine
) -> None:
    found = []
    for engine in (one, two):
        engine.place(State())
        found.append(list(engine.answer("IconQA", CHUNKS)))
    assert found[0] == found[1]
    assert [len(part) for part in found[0]] == [3, 1, 2]
    (alone,) = two.answer("IconQA", [CHUNKS[2]])
    assert alone == found[1][2]


def test_a_clients_spoilt_image_is_named_and_the_engine_goes_on(
    two: LocalEngine, one: LocalEngine, spoilt: tuple[Turn, Path], config: Config
) -> None:
    turn, image = spoilt
    for engine in (two, one):
        with pytest.raises(FcitError, match=image.name):
            list(engine.run(jobs(engine, [turn])))
    good = Experiment(config).plan[0][1]
    assert len(list(two.run(jobs(two, good)))) == len(good)


def test_a_killed_worker_is_a_fault_and_another_takes_its_place(
    two: LocalEngine, config: Config
) -> None:
    turns = Experiment(config).plan[0][0]
    before = processes(two)
    work = jobs(two, [*turns] * 3)
    killed = False
    faults, updates = [], []
    for reply in two.run(work):
        if not killed:
            os.kill(before[0].pid, signal.SIGKILL)
            killed = True
        (faults if isinstance(reply, Fault) else updates).append(reply)
    assert len(faults) + len(updates) == len(work)
    assert [fault.kind for fault in faults] == ["crash"]
    assert "status -9" in faults[0].detail
    assert before[0].poll() is not None and before[1].poll() is None
    now = processes(two)
    assert now[1] is before[1] and now[0].poll() is None


def test_a_client_that_hangs_is_a_fault_at_the_deadline(two: LocalEngine, config: Config) -> None:
    """Both workers are stopped, so that they take no more time than the machine's load explains."""
    turns = Experiment(config).plan[0][0]
    before = processes(two)
    work = jobs(two, turns[:1])
    for process in before:
        os.kill(process.pid, signal.SIGSTOP)
    two.deadline = 0.5
    (fault,) = two.run(work)
    two.deadline = 0.0
    assert (fault.client, fault.kind) == (turns[0].client, "timeout")
    (ended,) = [process for process in before if process.poll() is not None]
    assert ended.returncode == -signal.SIGKILL
    (other,) = [process for process in before if process is not ended]
    os.kill(other.pid, signal.SIGCONT)
    assert len(list(two.run(work * 2))) == 2


def test_closing_an_engine_ends_its_workers(two: LocalEngine) -> None:
    """The last test of this engine."""
    before = processes(two)
    assert [process.poll() for process in before] == [None, None]
    two.close()
    assert all(process.poll() is not None for process in before)
    two.close()


def test_one_worker_with_a_deadline_is_another_process(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkerProcess, "__init__", lambda *_: None)
    monkeypatch.setattr(WorkerProcess, "close", lambda *_: None)
    federation = replace(config.federation, deadline=60.0)
    with LocalEngine(replace(config, federation=federation), 1) as engine:
        assert isinstance(engine.workers[0], WorkerProcess)


def test_workers_and_those_in_their_places_take_gpus_in_turn(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str | None] = []
    process = MagicMock(spec=subprocess.Popen)

    def start(*_: object, env: dict[str, str], **__: object) -> MagicMock:
        found.append(env.get("CUDA_VISIBLE_DEVICES"))
        return process

    def given(device: str, device_map: str = "") -> list[str | None]:
        found.clear()
        model = replace(config.model, device=device, device_map=device_map)
        with LocalEngine(replace(config, model=model), 3) as engine:
            engine._replace(engine.workers[1])
        return [*sorted(found[:3], key=str), found[3]]

    monkeypatch.setattr(workers.subprocess, "Popen", start)
    monkeypatch.setattr(WorkerProcess, "ask", lambda *_: ({}, {}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert given("auto") == given("cuda") == ["0", "0", "1", "1"]
    assert given("cuda:1") == given("cpu") == given("cuda", "auto") == [None] * 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert given("auto") == ["4", "4", "7", "7"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    assert given("auto") == ["4"] * 4  # as this process has it


def test_a_worker_imports_the_source_tree_that_started_it(monkeypatch):
    """Also where only `sys.path` names it, as in a notebook, and another fcit is in PYTHONPATH."""
    monkeypatch.setenv("PYTHONPATH", "/another/src")
    source = Path(workers.__file__).parents[2]
    assert workers.search_path() == {"PYTHONPATH": f"{source}{os.pathsep}/another/src"}
    monkeypatch.delenv("PYTHONPATH")
    assert workers.search_path() == {"PYTHONPATH": str(source)}
