"""`fcit export --predictions`: files that the readers of MCITlib and lmms-eval take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import handmade
from fcit.files import write_json
from fcit.runs.api import Run
from fcit.types import FcitError
from fcit.use.export.answers import answers

EMPTY = {"truth": "7", "score": 0, "prompt": "How many?"}


@pytest.fixture
def run(table: dict, tmp_path: Path) -> Run:
    """A run with answers to two questions, whose ids are numbers in the test file."""
    made = handmade.run(tmp_path / "run", table)
    rows = [
        EMPTY | {"question_id": name, "prediction": said}
        for name, said in (("4", "six"), ("9", "7"))
    ]
    made.files.keep_answers("2", "IconQA", rows)
    return made


def test_mcitlib_finds_every_question_by_its_id(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = run.worker.experiment
    monkeypatch.setattr(type(experiment), "root", tmp_path / "data")
    with pytest.raises(FcitError, match=r"does not exist, and it says whether question ids are"):
        answers(run, "mcitlib", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    test = experiment.dataset("IconQA").file(tmp_path / "data", "test")
    test.parent.mkdir(parents=True)
    write_json(test, [{"question_id": name, "answer": "7"} for name in (4, 9)])
    answers(run, "mcitlib", tmp_path / "out")
    # as llava/eval/CoIN/eval_deepseek_r1.py reads them
    annotations = {row["question_id"]: row for row in json.loads(test.read_text())}
    lines = (tmp_path / "out" / "IconQA" / "2" / "merge.jsonl").read_text().splitlines()
    results = [json.loads(line) for line in lines]
    right = [
        row["text"].upper() == annotations[row["question_id"]]["answer"].upper() for row in results
    ]
    assert right == [False, True]
    names = ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert [[*row] for row in results] == [names, names]


def test_mcitlib_finds_general_questions_where_they_are(run: Run, tmp_path: Path) -> None:
    ((name, (root, dataset)),) = run.experiment.folder.general.items()
    asked = json.loads(dataset.file(root, "test").read_text())[0]["question_id"]
    row = EMPTY | {"question_id": str(asked), "prediction": "six"}
    run.files.keep_answers("2", name, [row])
    answers(run, "mcitlib", tmp_path / "out")
    (line,) = (tmp_path / "out" / name / "2" / "merge.jsonl").read_text().splitlines()
    assert json.loads(line)["question_id"] == asked


def test_lmms_eval_reads_the_answers_as_a_log(run: Run, tmp_path: Path) -> None:
    answers(run, "lmms-eval", tmp_path / "out")
    # as lmms_eval/models/simple/from_log.py reads them
    log = json.loads((tmp_path / "out" / "2" / "IconQA.json").read_text())
    assert log["args"]["limit"] is None and log["args"]["model"] == "fcit"
    assert isinstance(log["args"]["model_args"], str)
    said = {row["doc_id"]: row["resps"][0][0] for row in log["logs"]}
    assert (log["model_configs"]["task"], said) == ("IconQA", {0: "six", 1: "7"})


def test_a_run_without_answers_is_one_line(table: dict, tmp_path: Path) -> None:
    with pytest.raises(FcitError, match="holds no answers; evaluate the run first"):
        answers(handmade.run(tmp_path / "run", table), "mcitlib", tmp_path / "out")
