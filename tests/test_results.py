"""What is asked besides the learnt datasets: those of the next stage, and the general questions."""

from __future__ import annotations

from pathlib import Path

import pytest

import fcit
from fcit.config import validate
from fcit.files import read_json, read_lines
from fcit.pretrain import general
from fcit.pretrain.general import GENERAL


@pytest.fixture(scope="module")
def run(table: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = {"evaluation": table.get("evaluation", {}) | {"general": 20}}
    config = validate(table | changes | {"method": {"name": "disco"}})
    return fcit.run(config, tmp_path_factory.mktemp("results") / "run").folder


def right(run: Path, stage: str, dataset: str) -> float:
    rows = read_lines(run / "predictions" / stage / f"{dataset}.jsonl")
    return pytest.approx(sum(row["score"] for row in rows) / len(rows), abs=0.01)


def test_the_next_stages_dataset_is_asked_before_it_is_learned(run: Path) -> None:
    found = read_json(run / "matrix.json")
    first, second = found["datasets"]
    assert found["ahead"] == {second: right(run, "1", second)}
    assert found["matrix"][0][1] is None, "it is not seen yet, so it is not in the matrix"
    assert first not in found["ahead"], "before the first stage there is the base model alone"


def test_general_questions_are_asked_before_and_after(run: Path) -> None:
    found = read_json(run / "matrix.json")["general"]
    assert found == {
        "before": right(run, "zero-shot", GENERAL),
        "after": right(run, "2", GENERAL),
    }
    assert found["before"] > 50, "the mini model has learned them"
    assert not (run / "predictions" / "1" / f"{GENERAL}.jsonl").exists()


def test_evaluating_again_asks_them_again(run: Path) -> None:
    from fcit.session import Session
    from fcit.watch import Silent

    before = read_json(run / "matrix.json")
    session = Session(fcit.load(run).config, run, Silent())
    session.prepare()
    session.evaluate()
    assert read_json(run / "matrix.json") == before


def test_neither_is_asked_where_the_recipe_says_so(table: dict, tmp_path: Path) -> None:
    quiet = table.get("evaluation", {}) | {"general": 0, "ahead": False}
    run = fcit.run(table | {"evaluation": quiet, "method": {"name": "finetune"}}, tmp_path / "run")
    found = run.results
    assert found["ahead"] == found["general"] == {}
    names = {path.name for path in (run.folder / "predictions" / "1").iterdir()}
    assert names == {f"{found['datasets'][0]}.jsonl"}


def test_individual_is_not_asked_what_no_model_of_its_own_learnt(
    table: dict, tmp_path: Path
) -> None:
    run = fcit.run(
        table
        | {
            "evaluation": table.get("evaluation", {}) | {"general": 5},
            "method": {"name": "individual"},
        },
        tmp_path / "run",
    )
    assert set(run.results["general"]) == {"before"}


def test_the_general_questions_are_the_same_every_time(tmp_path: Path) -> None:
    general.write(tmp_path / "a", 6)
    general.write(tmp_path / "b", 6)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
