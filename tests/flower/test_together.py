"""Flower's simulation beside what else a round may have: packing, privacy, scores, faults, a journal."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from test_agree import agree

import fcit
from fcit.engines import process as worker
from fcit.engines.node import LocalClient
from fcit.engines.workers import WorkerProcess
from fcit.files import read_json, read_lines
from fcit.recipe.config import Config, to_table, validate
from fcit.types import FcitError, Job, Weights
from fcit.weights import load
from fcit.worker.experiment import Experiment
from fcit.worker.model import ModelWorker

pytest.importorskip("flwr")

from fcit.engines import wire
from fcit.flower.engine import FlowerEngine
from fcit.flower.simulation import simulate

WHATS: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("disco", {"federation": {"wire": "int8"}}),
    "int8, with control variates": (
        "finetune",
        {"federation": {"wire": "int8", "optimizer": "scaffold"}},
    ),
    "bfloat16": ("disco", {"federation": {"wire": "bfloat16"}}),
    "clients' scores": ("disco", {"evaluation": {"where": "clients"}}),
    "private tokens": (
        "disco",
        {
            "privacy": {"clip_norm": 1.0, "noise_multiplier": 0.1, "token_noise": 0.05},
            "federation": {"outlier_factor": 0.0},
        },
    ),
    "a robust rule": ("finetune", {"federation": {"robust": "median", "per_round": 4}}),
    "exact averages": ("finetune", {"federation": {"average": "product"}}),
}


def recipe(table: dict, engine: str, method: str, changes: dict[str, Any]) -> Config:
    """Two stages of one round, with some of its sections changed."""
    changed = copy.deepcopy(table)
    changed["data"]["train"] = 16
    changed["federation"] |= {"engine": engine, "rounds": 1}
    changed["method"] = {"name": method}
    changed["evaluation"] = {"limit": 4, "max_new_tokens": 4, "general_questions": 2}
    for section, values in changes.items():
        changed[section] = changed.get(section, {}) | values
    return validate(changed)


def compare(table: dict, folder: Path, method: str, changes: dict[str, Any]) -> None:
    for engine in ("local", "flower"):
        fcit.run(recipe(table, engine, method, changes), folder / engine)
    agree(folder / "local", folder / "flower")
    rows = [read_lines(folder / engine / "log.jsonl") for engine in ("local", "flower")]
    mine, theirs = ([one | {"seconds": 0, "digest": ""} for one in part] for part in rows)
    assert mine == theirs


def test_packed_tensors_and_clients_scores_together_have_the_same_bits(
    table: dict, tmp_path: Path
) -> None:
    changes = {"federation": {"wire": "int8"}, "evaluation": {"where": "clients"}}
    compare(table, tmp_path, "disco", changes)
    for engine in ("local", "flower"):
        kept = read_json(tmp_path / engine / "scores" / "2" / "IconQA.json")
        assert (kept["count"], kept["clients"], kept["faults"]) == (4, 4, 0)


@pytest.mark.slow
@pytest.mark.parametrize("what", WHATS)
def test_one_by_one_they_have_the_same_bits(what: str, table: dict, tmp_path: Path) -> None:
    compare(table, tmp_path, *WHATS[what])


# -- clients that fail -----------------------------------------------------------------------------------


def test_clients_that_fail_are_named_and_put_aside_and_the_round_goes_on(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first stage four of five fail, each in its own way; in the second one nobody does."""
    respond = worker.respond

    def spoilt(
        header: wire.Header, weights: Weights, client: LocalClient, model_worker: ModelWorker
    ) -> wire.Frame:
        train = header["do"] == "train" and header["turn"]["stage"] == 0
        if train and client.number == 0:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(model_worker, "train", failing)
                return respond(header, weights, client, model_worker)
        header, tensors = respond(header, weights, client, model_worker)
        if train and client.number == 1:
            tensors = {name: value * float("nan") for name, value in tensors.items()}
        if train and client.number == 2:
            tensors = {name.replace("/0/", "/9/"): value for name, value in tensors.items()}
        if train and client.number == 3:
            header = {"client": 3, "what": "is this"}
        return header, tensors

    def failing(job: Job, memory: Weights) -> None:
        raise ZeroDivisionError("a defect\nof two lines")

    monkeypatch.setattr(worker, "respond", spoilt)
    five = {"clients": 5, "per_round": 5, "min_clients": 1, "min_samples": 2}
    config = recipe(table, "flower", "finetune", {"federation": five})
    run = fcit.run(config, tmp_path / "run").folder
    first, second = read_lines(run / "log.jsonl")
    found = {one["client"]: (one["kind"], one["detail"]) for one in first["faults"]}
    assert {client: kind for client, (kind, _) in found.items()} == {
        0: "crash",
        1: "nonfinite",
        2: "keys",
        3: "garbled",
    }
    assert found[0][1] == "ZeroDivisionError: a defect of two lines"
    assert found[2][1] == "adapter 0 is missing"
    assert first["clients"] == [4]
    assert "faults" not in second
    assert second["clients"] == [0, 1, 2, 3, 4]
    aside = sorted(path.name for path in (run / "quarantine").iterdir())
    assert aside == ["1-1-client1-nonfinite.safetensors", "1-1-client2-keys.safetensors"]
    state = load(next((run / "state").glob("adapters-*.safetensors")))
    assert all(value.isfinite().all() for value in state.values())


def test_a_client_whose_token_was_late_or_that_was_mended_is_asked_again(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round without quorum ends the run; who answered is not asked again, and the others are."""
    config = recipe(table, "flower", "disco", {"setting": {"order": ["IconQA"]}})
    respond, asked, late = worker.respond, list[tuple[str, int]](), list[int]()

    def first_late(
        header: wire.Header, weights: Weights, client: LocalClient, model_worker: ModelWorker
    ) -> wire.Frame:
        asked.append((header["do"], client.number))
        if header["do"] == "identify" and len(late) < 1:
            late.append(client.number)
            return {"error": "no reply within 1 s", "kind": "timeout"}, {}
        return respond(header, weights, client, model_worker)

    monkeypatch.setattr(worker, "respond", first_late)
    with pytest.raises(FcitError, match="timeout: no reply within 1 s.*needed|needed.*timeout"):
        fcit.run(config, tmp_path / "run")
    before = len(asked)
    run = fcit.run(config, tmp_path / "run", resume=True).folder
    (row,) = read_lines(run / "log.jsonl")
    assert len(row["clients"]) == 2 and "faults" not in row
    assert [client for do, client in asked[before:] if do == "identify"] == late


@pytest.mark.slow
@pytest.mark.parametrize("how", ["crash", "timeout"])
def test_a_worker_that_dies_or_hangs_in_a_simulated_turn_is_its_clients_fault(
    how: str, table: dict, tmp_path: Path
) -> None:
    """The first client that trains has its worker killed, or stopped, once its turn has begun."""
    config = recipe(
        table, "flower", "finetune", {"federation": {"min_clients": 1, "deadline": 120.0}}
    )
    experiment = Experiment(config)
    turns = experiment.plan[0][0]
    with simulate(config, 1, tmp_path) as engine:
        state = experiment.method.open(engine.start(), "0")
        jobs = [Job(turn, experiment.method.send(state, turn)) for turn in turns]
        assert len(list(engine.run(jobs))) == 2
        (process,) = [one.process for one in engine.home.workers if isinstance(one, WorkerProcess)]
        if how == "timeout":
            engine.home.deadline = 5.0
        os.kill(process.pid, signal.SIGKILL if how == "crash" else signal.SIGSTOP)
        first, second = engine.run(jobs[:1]), engine.run(jobs[1:])
        (fault,) = first
        engine.home.deadline = 0.0
        assert (fault.client, fault.kind) == (turns[0].client, how)
        assert [one.client for one in second] == [turns[1].client]


# -- a run that is cut off -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_simulation_killed_in_mid_round_asks_only_who_has_not_answered(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SCAFFOLD's clients keep memories; in a round's journal is which turn left them."""
    here = {"per_round": 3, "rounds": 2, "optimizer": "scaffold"}
    fcit.run(recipe(table, "local", "finetune", {"federation": here}), tmp_path / "local")
    config = recipe(table, "flower", "finetune", {"federation": here})
    file, folder = tmp_path / "short.toml", tmp_path / "flower"
    file.write_text(tomli_w.dumps(to_table(config)))
    process = subprocess.Popen(
        [sys.executable, "-m", "fcit", "run", str(file), "--out", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 300
    while not answers(folder) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    assert process.poll() is None, "the run ended before it could be killed"
    process.kill()
    process.wait()
    answered = answers(folder)
    asked: list[tuple[int, int, int]] = []
    run = FlowerEngine.run

    def counted(engine: FlowerEngine, jobs: Sequence[Job]):
        asked.extend((job.turn.stage, job.turn.round, job.turn.client) for job in jobs)
        return run(engine, jobs)

    monkeypatch.setattr(FlowerEngine, "run", counted)
    other = recipe(table, "local", "finetune", {"federation": here})
    with pytest.raises(FcitError, match="engine=flower"):
        fcit.run(other, folder, resume=True)
    assert answers(folder) == answered
    fcit.run(config, folder, resume=True)
    agree(tmp_path / "local", folder)
    members = {turn.client for turn in Experiment(config).plan[0][0]}
    assert answered and answered < members
    assert {client for *place, client in asked if place == [0, 0]} == members - answered
    assert len(asked) == len(members - answered) + 3 * 3
    assert not (folder / "journal").exists()


def answers(run: Path) -> set[int]:
    return {int(path.stem) for path in run.glob("journal/[0-9]*.safetensors")}
