"""A finished run made by hand in a moment: the mini model with drawn adapters, tokens of real words."""

from __future__ import annotations

import contextlib
import copy
import io
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

import fcit
from fcit.files import read_json, write_json
from fcit.models import CHECKPOINTS
from fcit.models.identity import Encoder
from fcit.models.lmm import LMM
from fcit.recipe import config as configs
from fcit.rounds.runfolder import RunFolder
from fcit.rounds.server import Position
from fcit.runs.api import Run
from fcit.seeds import torch_stream
from fcit.types import State, Weights
from fcit.worker.experiment import Experiment

TASKS = ("IconQA", "FigureQA")
PROMPTS = (
    "How many icons are there?\nAnswer the question using a single word or phrase.",
    "Is the red line above the blue line?\nAnswer yes or no.",
)


@cache
def model() -> LMM:
    torch.set_num_threads(1)
    return LMM(CHECKPOINTS / "mini-lmm")


@cache
def encoder() -> Encoder:
    return Encoder(CHECKPOINTS / "mini-clip")


def run(folder: Path, table: dict, method: str = "disco", **options) -> Run:
    """A run of two stages whose adapters are noise: they answer oddly, each in its own way."""
    table = copy.deepcopy(table) | {
        "method": {"name": method, **options},
        "model": {"dtype": "float32", "device": "cpu"},
    }
    table["evaluation"] = {"max_new_tokens": 12}
    config = configs.validate(table)
    folder.mkdir(parents=True)
    RunFolder(folder).begin(configs.to_table(config))
    built = config.method
    state = built.start(
        model().subspaces.blank(4, 0.05, torch_stream(0, "blank")), model().base_projector
    )
    names = TASKS if method == "individual" else ("0", "1")
    if method in ("finetune", "ewc", "lwf", "multitask"):
        names = ("0",)
    if method not in ("l2p", "moelora", "zeroshot"):
        state = replace(state, adapters={})
        for name in names:
            state = built.open(state, name)
            state.adapters[name] = _shaken(state.adapters[name], name, 0.17)
    extras = dict(state.extras)
    if "projector" in extras:
        extras["projector"] = _shaken(extras["projector"], "projector", 0.03)
    if method in ("disco", "disco_lda"):
        # Both tokens are a little like both prompts, so that answers mix the subspaces.
        tokens = torch.tensor([[1.0, 0.9], [0.8, 1.0]]) @ encoder().embed("text", PROMPTS, [])
        if built.identity == "both":
            tokens = torch.cat([tokens, tokens[:, : encoder().features.encoding.image]], 1)
        if built.discriminant:
            spread = torch.randn((8, tokens.shape[1]), generator=torch_stream(0, "spread"))
            tokens = torch.stack([built.make_token(row + 2 * spread) for row in tokens])
        extras["identity"] = {"tokens": tokens, "samples": torch.tensor([3, 4])}
    kept, plan = RunFolder(folder), Experiment(config).plan
    if method != "zeroshot":
        at = Position(len(plan) - 1, len(plan[-1]), True)
        kept.commit(State(state.adapters, extras), at)
    rows = [[50.0, 50.0]] * (1 if built.single_row else len(plan))
    kept.write(kept.matrix, {"datasets": TASKS, "matrix": rows})
    for stage, rounds in enumerate(plan):
        for number in range(len(rounds)):
            name = names[stage % len(names)]
            kept.append_log(line(stage + 1, number + 1, task=TASKS[stage], subspace=name))
    return fcit.load(folder)


def too_long(suite: Path, folder: Path) -> str:
    """Make a data folder whose last training sample of FigureQA has some 200 tokens; return its id."""
    shutil.copytree(suite / "instructions", folder / "instructions")
    (folder / "datasets").symlink_to(suite / "datasets")
    file = folder / "instructions" / "FigureQA" / "train.json"
    rows = read_json(file)
    rows[-1]["conversations"][0]["value"] += " and is it so?" * 40
    write_json(file, rows)
    return rows[-1]["id"]


def line(
    stage: int, number: int, clients: Sequence[int] = (0,), task: str = "", subspace: str = "0"
) -> dict:
    """A line of a run's log: its clients trained a subspace on a task."""
    each = dict.fromkeys(("samples", "losses", "bytes_down", "bytes_up"), [1] * len(clients))
    also = {"tasks": [task] * len(clients), "subspaces": [subspace] * len(clients)}
    return {"stage": stage, "round": number, "clients": clients, "seconds": 1.0, **each, **also}


def picture(path: Path, size: tuple[int, int] = (64, 40)) -> Path:
    """A drawing that is not square, so that padding matters."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((4, 6, 24, 26), fill="red")
    draw.ellipse((34, 10, 56, 32), fill="blue")
    image.save(path)
    return path


def by_the_card(folder: Path, image: Path, prompt: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the code in a folder's README.md prints, the image and the question filled in."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    for name, real in (
        ('"photo.png"', repr(str(image))),
        ('"How many icons are there?"', repr(prompt)),
    ):
        code = code.replace(name, real)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("router", None)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "card", "exec"), {})
    return said.getvalue().strip()


def _shaken(weights: Weights, name: str, size: float) -> Weights:
    noise = torch_stream(7, "shake", name)
    return {
        key: value + size * torch.randn(value.shape, generator=noise)
        for key, value in sorted(weights.items())
    }
