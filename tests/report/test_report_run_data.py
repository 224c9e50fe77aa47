"""Run folders are read whole, and what is broken in them is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fcit.files import read_json, write_json, write_text
from fcit.report.page import write
from fcit.report.run_data import predictions, read_run, read_runs
from fcit.types import FcitError

Build = Callable[..., Path]


def test_predictions_are_those_of_the_final_measured_stage(build: Build) -> None:
    folder = build("d", "disco")
    (folder / "predictions" / "9").mkdir()
    assert predictions(read_run(folder), "IconQA")[0].question_id == "IconQA-0"
    assert len(predictions(read_run(folder), "IconQA")[0].activation) == 3
    assert predictions(read_run(folder), "../1/IconQA") == []


def test_a_run_in_its_first_stage_has_no_predictions_of_its_own(build: Build) -> None:
    folder = build("d", "disco")
    run = replace(read_run(folder), matrix=())
    assert (folder / "predictions" / "zero-shot").is_dir()
    assert predictions(run, "IconQA") == []


def test_folders_that_are_no_runs_are_named(build: Build, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FcitError, match="empty: holds no matrix.json"):
        write([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(FcitError, match="nowhere: is not a folder"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(FcitError, match="no run folder given"):
        write([], tmp_path / "out")
    write_text(tmp_path / "file", "x")
    with pytest.raises(FcitError, match="file: is a file"):
        write([build("d", "finetune")], tmp_path / "file")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("matrix.json", "{", r"matrix\.json: not valid JSON"),
        ("matrix.json", "[]", r"matrix\.json: must be a JSON object"),
        ("matrix.json", '{"setting": "x"}', r"matrix\.json: the field 'datasets' is missing"),
        ("config.toml", "a = = 1", r"config\.toml: not valid TOML"),
        ("log.jsonl", '{"stage": 1}\n', r"log\.jsonl, line 1: the field 'round' is missing"),
        ("log.jsonl", "[1]\n", r"log\.jsonl, line 1: must be a JSON object"),
        ("partition.json", "[]", r"partition\.json: must be a JSON object"),
        ("state/state.json", "{", r"state\.json: not valid JSON"),
        ("predictions/3/IconQA.jsonl", "{}\n", r"IconQA\.jsonl, line 1: the field 'question_id'"),
        ("predictions/3/IconQA.jsonl", "{\n", r"IconQA\.jsonl, line 1: not valid JSON"),
    ],
)
def test_broken_files_are_named(
    build: Build, tmp_path: Path, file: str, text: str, message: str
) -> None:
    folder = build("d", "disco")
    write_text(folder / file, text)
    with pytest.raises(FcitError, match=message):
        write([folder], tmp_path / "out")


def test_fields_of_the_wrong_kind_are_named(build: Build) -> None:
    folder = build("d", "disco")
    data = read_json(folder / "matrix.json")
    for change, message in (
        ({"seed": "x"}, "seed: Input should be a valid integer"),
        ({"matrix": [[1.0]]}, "a row of 1 cells for 3 datasets"),
        ({"routing": [1]}, "routing: Input should be a valid dictionary"),
    ):
        write_json(folder / "matrix.json", data | change)
        with pytest.raises(FcitError, match=message):
            read_run(folder)


def test_a_copy_of_the_results_without_weights_is_reported_without_tokens(build: Build) -> None:
    folder = build("d", "disco")
    whole = read_run(folder)
    for file in (folder / "state").glob("*.safetensors"):
        file.unlink()
    copy = read_run(folder)
    assert whole.tokens and not copy.tokens
    assert (copy.matrix, copy.rounds) == (whole.matrix, whole.rounds)


def test_tokens_outside_the_run_are_refused(build: Build) -> None:
    folder = build("d", "disco")
    state = read_json(folder / "state/state.json")
    write_json(folder / "state/state.json", state | {"extras": {"identity": "../../secret"}})
    with pytest.raises(FcitError, match="state/secret: no such file"):
        read_run(folder)
