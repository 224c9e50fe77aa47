"""fcit as a Python library: paths, numbers and the environment of whoever calls it."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fcit
import handmade
from fcit.engines.workers import gpus
from fcit.files import write_json
from fcit.recipe.config import to_table, validate
from fcit.rounds import evaluate
from fcit.rounds.evaluate import Answer
from fcit.runs.api import Run
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


def test_torch_computes_as_in_a_new_process_whatever_this_one_has_set() -> None:
    before = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
            with threads(1):
                assert torch.get_default_dtype() == torch.float32
                assert torch.get_float32_matmul_precision() == "highest"
                assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
                assert not torch.is_autocast_enabled("cpu")
            assert torch.is_autocast_enabled("cpu") and torch.is_inference_mode_enabled()
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_default_dtype(before[0])
        torch.set_float32_matmul_precision(before[1])


def test_a_precision_that_torch_cannot_name_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `torch.backends.cuda.matmul.fp32_precision = "tf32"`."""

    def refused() -> str:
        raise RuntimeError("PyTorch is checking the matmul precision")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", refused)
    with threads(1):
        assert torch.get_num_threads() == 1


def test_questions_of_several_threads_are_answered_one_after_another(
    table: dict, tmp_path: Path
) -> None:
    """The gate is the model's: a second question would set it while the first is answered."""
    busy: list[int] = []

    class Slow:
        def answer(self, data: object) -> list[int]:
            busy.append(1)
            time.sleep(0.02)
            assert len(busy) == 1
            busy.pop()
            return [len(busy)]

    run = handmade.run(tmp_path / "run", table)
    run.__dict__["worker"] = Slow()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: run.answer("a.png", "What?"), range(8))) == {0}


def test_a_run_inside_a_run_is_refused(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "run", lambda self: fcit.run(table, tmp_path / "second"))
    for _ in range(2):  # the first leaves nothing locked
        with pytest.raises(FcitError, match="second: another run is going on in this process"):
            fcit.run(table, tmp_path / "first", resume=(tmp_path / "first").is_dir())


def test_a_config_that_was_changed_is_checked(table: dict, tmp_path: Path) -> None:
    config = validate(table)
    with pytest.raises(FcitError, match="seed: must be a whole number"):
        fcit.run(replace(config, seed="3"), tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(FcitError, match="config: .* not JSON serializable"):
        fcit.run(replace(config, seed=np.int64(3)), tmp_path / "run")  # type: ignore[arg-type]
    rounds = replace(config, federation=replace(config.federation, rounds=0))
    with pytest.raises(FcitError, match="federation.rounds: "):
        fcit.run(rounds, tmp_path / "run")
    assert validate(to_table(config)) == config


def test_an_unfinished_run_says_so_beside_last(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = {
        "method": "disco",
        "datasets": ["IconQA", "FigureQA"],
        "stages": ["IconQA", "FigureQA"],
        "zero_shot": {"IconQA": 1.0, "FigureQA": 2.0},
        "matrix": [[50.0, None]],
        "last": 50.0,
        "avg": 50.0,
    }
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "matrix.json", matrix)
    monkeypatch.setattr("fcit.rounds.runfolder.RunFolder.rows", lambda self: matrix["matrix"])
    assert "Last, Avg (unfinished: 1 of 2 stages)" in repr(Run(tmp_path / "run"))
    matrix["matrix"] = [[50.0, None], [40.0, 60.0]]
    assert "(unfinished" not in repr(Run(tmp_path / "run"))


def test_gpus_that_were_renamed_too_late_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "3,5")
    assert gpus() == ["3", "5"]
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(FcitError, match="changed after torch began"):
        gpus()
