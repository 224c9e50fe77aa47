"""fcit as a Python library: paths, numbers and the environment of whoever calls it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import fcit
import handmade
from fcit.engines.workers import gpus
from fcit.recipe.config import validate
from fcit.rounds import evaluate
from fcit.rounds.evaluate import Answer
from fcit.runs.session import Session
from fcit.types import FcitError
from fcit.watch import Silent
from fcit.weights import threads


def test_a_tilde_is_the_home_folder(
    tmp_path: Path, table: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run = fcit.run(table | {"method": {"name": "zeroshot"}}, "~/first")
    assert run.folder == tmp_path / "first" and not (tmp_path / "~").exists()
    assert fcit.load("~/first").results == fcit.Run("first").results
    with pytest.raises(FcitError, match="no such recipe|no such file"):
        fcit.run("~/none.toml")


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    config = validate(
        {
            "seed": np.arange(4)[3],
            "training": {"lr": np.float64(0.5), "threads": torch.tensor(2)},
            "federation": {"ranks": np.array([4, 8])},
            "evaluation": {"forward_transfer": np.bool_(False)},
        }
    )
    assert (config.seed, config.training.lr, config.training.threads) == (3, 0.5, 2)
    assert config.federation.ranks == (4, 8) and config.evaluation.forward_transfer is False


def test_torch_keeps_its_number_of_threads(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []

    def answer(*given: object) -> list[Answer]:
        used.append(torch.get_num_threads())
        return evaluate.answer(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("fcit.worker.model.answer", answer)
    asked = {"limit": 1, "max_new_tokens": 1, "general_questions": 0}
    changes = {"method": {"name": "zeroshot"}, "training": {"threads": 2}, "evaluation": asked}
    with threads(3):
        run = fcit.run(table | changes, tmp_path / "run")
        assert torch.get_num_threads() == 3
        Session(run.config, run.folder, Silent()).evaluate()
        run.generate(handmade.picture(tmp_path / "a.png"), handmade.PROMPTS[0])
        assert torch.get_num_threads() == 3
    assert set(used) == {2}


def test_gpus_that_were_renamed_too_late_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "3,5")
    assert gpus() == ["3", "5"]
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(FcitError, match="changed after torch began"):
        gpus()
