"""Clients score their own test samples; the server gets totals, and no answers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

import fcit
from fcit.files import read_json
from fcit.recipe.config import validate
from fcit.runs.client_scores import usable
from fcit.types import Fault, Score
from fcit.worker.experiment import Experiment


def test_only_possible_scores_are_counted() -> None:
    came = [
        Score(2, "red", 300.0, 4),
        Score(0, "red", 100.0, 1),
        Score(0, "red", 0.0, 1),
        Score(1, "red", 500.0, 4),
        Score(3, "red", float("nan"), 4),
        Score(4, "red", 0.0, -1),
        Score(5, "blue", 0.0, 1),
        Score(9, "red", 0.0, 1),
        Fault(6, "crash", "gone"),
        Score(7, "red", 0.0, "x"),
        Score(8, "red", 10**400, 4),
        Score(10, "red", 0.0, 10**12),
        Score(11, "red", True, 4),
        Score(12, "red", 0.0, True),
    ]
    good, faults = usable(iter(came), "red", [*range(9), 10, 11, 12])
    assert [(one.client, one.count) for one in good] == [(0, 1), (2, 4)]
    kinds = ["duplicate", "samples", "samples", "samples", "stranger", "stranger", "crash"]
    kinds += ["samples"] * 5
    assert [fault.kind for fault in faults] == kinds


def test_every_test_sample_is_somebodys(table: dict) -> None:
    experiment = Experiment(validate(table))
    shares = [experiment.test_share("IconQA", client) for client in range(4)]
    ids = sorted(sample.id for share in shares for sample in share)
    assert ids == sorted(sample.id for sample in experiment.samples("IconQA", "test"))


@pytest.fixture(scope="module")
def scored(table: dict) -> dict:
    """A recipe whose answers do not depend on their batch."""
    changed = copy.deepcopy(table)
    changed["method"]["name"] = "finetune"
    changed["federation"]["rounds"] = 1
    changed["evaluation"]["batch_size"] = 1
    return changed


@pytest.fixture(scope="module")
def here(scored: dict, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the server itself measures."""
    return fcit.run(scored, tmp_path_factory.mktemp("here") / "run").results


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_scored_by_its_clients_has_the_accuracies_of_one_scored_by_the_server(
    workers: int, scored: dict, here: dict, tmp_path: Path
) -> None:
    changed = copy.deepcopy(scored)
    changed["federation"]["workers"] = workers
    changed["evaluation"]["where"] = "clients"
    there = fcit.run(changed, tmp_path / "there").results
    assert there["matrix"] == here["matrix"]
    assert there["zero_shot"] == here["zero_shot"]
    assert there["chance"] == there["routing"] == {}
    answers = (tmp_path / "there" / "predictions").rglob("*.jsonl")
    assert not {path.stem for path in answers} & {"IconQA", "FigureQA"}
    assert there["ahead"] == here["ahead"]
    kept = read_json(tmp_path / "there" / "scores" / "2" / "IconQA.json")
    assert (kept["count"], kept["clients"], kept["faults"]) == (6, 4, 0)
