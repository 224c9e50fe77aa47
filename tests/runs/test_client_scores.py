"""Clients score their own test samples; the server gets totals, and no answers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fcit
from fcit.files import read_json
from fcit.recipe.config import validate
from fcit.runs.client_scores import ask, needed, usable
from fcit.runs.session import Session
from fcit.types import Fault, FcitError, Score, Setting, Stage, Task
from fcit.watch import Silent
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


class Scored:
    """An engine whose clients sent these replies."""

    def __init__(self, *replies: Score | Fault):
        self.replies = replies

    def score(self, dataset: str, clients: Sequence[int]) -> Iterator[Score | Fault]:
        return iter(self.replies)


def test_all_clients_are_needed_unless_the_recipe_says_how_many() -> None:
    engine: Any = Scored(Score(0, "red", 100.0, 2), Fault(1, "timeout", "no reply"))
    with pytest.raises(FcitError, match=r"scores of red: 1 of 2 .*no reply.*min_clients=N"):
        ask(engine, "red", [0, 1], Silent(), 2)
    kept = ask(engine, "red", [0, 1], Silent(), 1)
    assert (kept["total"], kept["clients"], kept["faults"]) == (100.0, 1, 1)
    twice: Any = Scored(Score(0, "red", 100.0, 2), Score(0, "red", 100.0, 2))
    assert ask(twice, "red", [0], Silent(), 1)["count"] == 2
    fifty = Setting("s", (Stage((Task("red", ("red",)),)),), 50, 5, 1)
    assert [needed(least, fifty) for least in (0, 1, 4, 5)] == [50, 10, 40, 50]
    hundred = replace(fifty, clients=100, per_round=100)
    assert [needed(least, hundred) for least in (7, 55)] == [7, 55]  # 7 / 100 * 100 is more than 7
    none: Any = Scored(Score(0, "red", 100.0, 2), Score(1, "red", 0.0, 0))
    assert ask(none, "red", [0, 1], Silent(), 2)["clients"] == 1  # the other has no test sample


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
    # A server without the clients' shares would score others, and delete these.
    (tmp_path / "there" / "partition.json").unlink()
    session = Session(validate(changed), tmp_path / "there", Silent())
    with pytest.raises(FcitError, match="its clients scored their own test samples"):
        session.evaluate()
    assert read_json(tmp_path / "there" / "scores" / "2" / "IconQA.json") == kept


def test_an_evaluation_that_fails_keeps_the_old_scores(
    scored: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = copy.deepcopy(scored)
    changed["evaluation"]["where"] = "clients"
    run = fcit.run(changed, tmp_path / "run")
    file = tmp_path / "run" / "scores" / "2" / "IconQA.json"
    before = file.read_bytes()

    def score(self: object, dataset: str, clients: Sequence[int]) -> Iterator[Score | Fault]:
        return iter([Fault(client, "timeout", "no reply") for client in clients])

    monkeypatch.setattr("fcit.engines.local.LocalEngine.score", score)
    with pytest.raises(FcitError, match="0 of 4 clients gave a valid score"):
        Session(run.config, tmp_path / "run", Silent()).evaluate()
    assert file.read_bytes() == before
