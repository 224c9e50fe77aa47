"""A configuration's data: every size and count has its own folder in the cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fcit.recipe.config import validate
from fcit.recipe.data import SIZES
from fcit.worker.cache import cache_folder
from fcit.worker.experiment import Experiment


def root(**data) -> Path:
    return Experiment(validate({"data": data})).root


def test_sizes_and_counts_have_folders_of_their_own() -> None:
    assert root() == root(size="small")
    folders = [root(size=size) for size in SIZES]
    folders += [root(size="tiny", train=7), root(size="tiny", test=7)]
    assert len(set(folders)) == len(folders)
    assert all(folder.parent == cache_folder() for folder in folders)


def test_the_same_counts_are_the_same_data_whatever_the_size_is_called() -> None:
    train, test = SIZES["tiny"]
    assert root(size="full", train=train, test=test) == root(size="tiny")


def test_a_run_of_a_size_reads_its_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fcit import suite as mini
    from fcit.watch import Silent

    made = []
    monkeypatch.setattr(mini, "write", lambda *given, **_: made.append(given))
    monkeypatch.setattr("fcit.benchmark.datasets.missing", lambda *_: [])
    monkeypatch.setenv("FCIT_CACHE", str(tmp_path))
    experiment = Experiment(validate({"seed": 2, "data": {"size": "tiny", "test": 9}}))
    experiment.prepare(Silent())
    assert made == [(experiment.root, 2, SIZES["tiny"][0], 9)]


def test_limits_keep_every_answers_share_of_a_file_in_class_order(tmp_path: Path) -> None:
    place = tmp_path / "instructions" / "IconQA"
    place.mkdir(parents=True)
    answers = ["star"] * 30 + ["heart"] * 20 + ["ball"] * 10
    rows = [{"image": "IconQA/a.png", "text": "?", "answer": answer} for answer in answers]
    (place / "val.json").write_text(json.dumps(rows))

    def asked(**table: dict) -> list[str]:
        table["data"] = {"root": str(tmp_path)} | table.get("data", {})
        return [one.answers[0] for one in Experiment(validate(table)).samples("IconQA", "test")]

    assert asked(data={"test": 6}) == ["star"] * 3 + ["heart"] * 2 + ["ball"]
    assert asked(data={"test": 30}, evaluation={"limit": 12}) == (
        ["star"] * 6 + ["heart"] * 4 + ["ball"] * 2
    )
    assert asked() == answers
