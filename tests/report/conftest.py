"""Synthetic run folders: what `fcit run` leaves behind, without running anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image

from fcit.files import write_json, write_lines, write_text
from fcit.methods import find, names
from fcit.recipe.config import validate
from fcit.rounds.runfolder import RunFolder
from fcit.rounds.server import Position
from fcit.types import State
from fcit.worker.experiment import Experiment

TASKS = (
    "ImageNet-R",
    "ArxivQA",
    "IconQA",
    "CLEVR-Math",
    "OCR-VQA",
    "Flickr30k",
    "FigureQA",
    "super-CLEVR",
)
Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """A function that writes one run folder and returns its path."""

    def make(
        name: str,
        method: str = "disco",
        seed: int = 0,
        datasets: Sequence[str] = TASKS[:3],
        done: int | None = None,
        images: bool = True,
        **changes: Any,
    ) -> Path:
        return write_run(tmp_path, name, method, seed, tuple(datasets), done, images, changes)

    return make


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """Three runs, and the page of their report with its figures."""
    from fcit.report.page import write

    place = tmp_path_factory.mktemp("drawn")
    runs = [
        write_run(place, method[0], method, 0, TASKS[:3], None, True, {})
        for method in ("disco", "finetune", "zeroshot")
    ]
    return runs, write(runs, place / "out")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave figures out of the page, where a test looks at its words only."""
    monkeypatch.setattr("fcit.report.style.to_svg", lambda figure: "<svg/>")
    monkeypatch.setattr("fcit.report.style.save_png", lambda figure, path: None)


def write_run(
    place: Path,
    name: str,
    method: str,
    seed: int,
    datasets: tuple[str, ...],
    done: int | None,
    images: bool,
    changes: dict[str, Any],
) -> Path:
    """A run of one dataset a stage; `changes` replace fields of matrix.json or config sections."""
    run, root = place / name, place / "data"
    draw = np.random.default_rng([seed, len(method)])
    single = method in names() and find(method).single_row
    stages = 0 if method == "zeroshot" else 1 if single else len(datasets)
    stages = stages if done is None else done
    keeps = 0.95 if method == "disco" else 0.35
    peaks = draw.uniform(45, 95, len(datasets))
    matrix: list[list[float | None]] = [
        [
            None if at > stage and not single else float(peaks[at] * keeps ** max(0, stage - at))
            for at in range(len(datasets))
        ]
        for stage in range(stages)
    ]
    known = [[cell for cell in row if cell is not None] for row in matrix]
    zero = {one: float(12 + 3 * at) for at, one in enumerate(datasets)}
    flat = sum(zero.values()) / len(zero)
    table = {
        "setting": "task-hom",
        "method": method,
        "scoring": "strict",
        "beta": 1.0,
        "seed": seed,
        "datasets": list(datasets),
        "stages": [] if method == "zeroshot" else ["all"] if single else list(datasets),
        "matrix": matrix,
        "last": sum(known[-1]) / len(known[-1]) if known else flat,
        "avg": sum(sum(row) / len(row) for row in known) / len(known) if known else flat,
        "forgetting": {
            one: max(c for row in matrix if (c := row[at]) is not None) - (matrix[-1][at] or 0.0)
            for at, one in enumerate(datasets)
            if len(matrix) > 1 and matrix[-2][at] is not None
        },
        "zero_shot": zero,
        "chance": {one: float(5 + at) for at, one in enumerate(datasets)},
        "routing": dict.fromkeys(datasets, 99.0) if method == "disco" else {},
    }
    config: dict[str, Any] = {
        "seed": seed,
        "data": {"root": str(root)},
        "setting": {"name": "task-hom", "beta": 1.0, "order": list(datasets)},
        "federation": {"clients": 10, "per_round": 5, "rounds": 2},
        "method": {"name": method, "rank": 8},
        "evaluation": {"scoring": "strict"},
        "versions": {"fcit": "0.1.0", "torch": "2.13.0", "commit": "0123abc"},
    }
    for key, value in changes.items():
        if key in config and isinstance(value, dict):
            config[key] = {**config[key], **value}
        else:
            table[key] = value
    write_json(run / "matrix.json", table)
    write_text(run / "config.toml", tomli_w.dumps(config))
    counts = {one: draw.integers(5, 200, 10).tolist() for one in datasets}
    write_json(run / "partition.json", {"datasets": counts})
    plain = {key: part for key, part in config.items() if key != "versions"}
    plan: Any = [[0, 1]] * len(datasets)
    if method in names():
        plan = Experiment(validate(plain)).plan
    plan = plan if single else plan[:stages]
    if plan:
        write_lines(run / "log.jsonl", _log(method, datasets, plan, single))
        tokens = torch.tensor(draw.normal(size=(len(datasets), 64)) + 0.7, dtype=torch.float32)
        extras = {"identity": {"tokens": tokens}} if method == "disco" else {}
        RunFolder(run).commit(State({}, extras), Position(len(plan) - 1, len(plan[-1]), True))
    for stage in ["zero-shot", *map(str, range(1, stages + 1))]:
        seen = datasets if single or stage == "zero-shot" else datasets[: int(stage)]
        for at, one in enumerate(seen):
            rows = _predictions(root, one, at, len(seen), method, draw, images)
            write_lines(run / "predictions" / stage / f"{one}.jsonl", rows)
    return run


def _log(method: str, names: tuple[str, ...], plan: Any, single: bool) -> list[dict[str, Any]]:
    share = 1 if method == "disco" else 3
    return [
        {
            "stage": stage + 1,
            "round": turn + 1,
            "clients": [0, 2, 4, 6, 8],
            "tasks": ["all" if single else names[stage]] * 5,
            "samples": [10, 20, 30, 40, 50],
            "losses": [1.0, 0.9, 0.8, 0.7, 0.6],
            "subspaces": [str(stage) if method == "disco" else "0"] * 5,
            "seconds": 4.0 + turn,
            "bytes_down": [400_000 * share] * 5,
            "bytes_up": [300_000 * share] * 5,
        }
        for stage, rounds in enumerate(plan)
        for turn in range(len(rounds))
    ]


def _predictions(
    root: Path,
    dataset: str,
    at: int,
    subspaces: int,
    method: str,
    draw: np.random.Generator,
    images: bool,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number in range(6):
        image = f"{dataset}/test/{number}.png"
        if images and not (root / "datasets" / image).is_file():
            (root / "datasets" / image).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((48, 48, 3), dtype=np.uint8) + 235
            pixels[8 + number : 30, 10:38] = draw.integers(30, 220, 3)
            Image.fromarray(pixels).save(root / "datasets" / image)
        right = number % 3 != 0 if method == "disco" else number == 1
        shares = {str(k): 0.9 if k == at else 0.1 / max(1, subspaces - 1) for k in range(subspaces)}
        rows.append(
            {
                "question_id": f"{dataset}-{number}",
                "image": image,
                "prompt": f"What is drawn here, case {number}?\nAnswer using a single word.",
                "prediction": "house" if right else "tree",
                "truth": "house",
                "score": 100.0 if right else 0.0,
                "activation": shares if method == "disco" else {"0": 1.0},
            }
        )
    return rows
