"""A finished run made by hand in a moment: the mini model with drawn adapters, tokens of real words."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from PIL import Image, ImageDraw

import fcit
from fcit.files import write_lines
from fcit.models import CHECKPOINTS
from fcit.models.identity import Encoder
from fcit.models.lmm import LMM
from fcit.recipe import config as configs
from fcit.rounds.runfolder import RunFolder
from fcit.rounds.server import Position
from fcit.runs.api import Run
from fcit.seeds import torch_stream
from fcit.types import State, Weights

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
    configs.write(folder / "config.toml", configs.to_table(config))
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
    if method == "disco":
        # Both tokens are a little like both prompts, so that answers mix the subspaces.
        tokens = torch.tensor([[1.0, 0.9], [0.8, 1.0]]) @ encoder().embed("text", PROMPTS, [])
        if built.identity == "both":
            tokens = torch.cat([tokens, tokens[:, : encoder().model.config.projection_dim]], 1)
        extras["identity"] = {"tokens": tokens, "samples": torch.tensor([3, 4])}
    kept = RunFolder(folder)
    if method != "zeroshot":
        kept.commit(State(state.adapters, extras), Position(1, 2, True))
    rows = [
        {"stage": at + 1, "round": 1, "tasks": [task], "subspaces": [names[at % len(names)]]}
        for at, task in enumerate(TASKS)
    ]
    write_lines(kept.log, rows)
    return fcit.load(folder)


def picture(path: Path, size: tuple[int, int] = (64, 40)) -> Path:
    """A drawing that is not square, so that padding matters."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((4, 6, 24, 26), fill="red")
    draw.ellipse((34, 10, 56, 32), fill="blue")
    image.save(path)
    return path


def _shaken(weights: Weights, name: str, size: float) -> Weights:
    noise = torch_stream(7, "shake", name)
    return {
        key: value + size * torch.randn(value.shape, generator=noise)
        for key, value in sorted(weights.items())
    }
