"""`fcit data pretrain`: make the mini model and the mini CLIP from the generic mixture."""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fcit.benchmark import generic
from fcit.files import read_json, write_json
from fcit.pretrain.chunks import BATCH, batches_of, clip_chunk, lmm_chunk, tokenizer
from fcit.seeds import derive
from fcit.types import FcitError

LMM_STEPS, CLIP_STEPS = 2400, 900

Progress = Callable[[str, int, int, float], None]
"""Hears of (model, step, steps, loss) after every step."""


def pretrain(
    out: Path,
    seed: int = 0,
    lmm_steps: int = LMM_STEPS,
    clip_steps: int = CLIP_STEPS,
    resume: bool = True,
    progress: Progress | None = None,
    test: int = 1024,
) -> dict[str, dict[str, float]]:
    """Train both models and write `out/mini-lmm` and `out/mini-clip`; returns held-out figures.

    `out/mini-lmm` is written every minute, to be tried early. What is needed to go on after an
    interruption is kept in `out/.pretrain` until the end. `test`
    scenes are held out. Raises FcitError for step counts below one, and for a state left by another
    seed or length.
    """
    import torch

    from fcit.models import mini
    from fcit.models import pretrain as loops
    from fcit.models.cards import clip_card, lmm_card

    if min(lmm_steps, clip_steps, test) < 1:
        raise FcitError("lmm_steps, clip_steps and test must be at least 1")
    state = out / ".pretrain"
    plan = {"seed": seed, "lmm_steps": lmm_steps, "clip_steps": clip_steps}
    _begin(state, plan, resume)
    words = tokenizer(seed)
    _keep_memory()
    tell = progress or (lambda *_: None)
    size = words.get_vocab_size()

    with _seeded(seed, "pretrain-clip"):
        clip = mini.clip(size)
    with batches_of(clip_chunk, seed, "pretrain-clip") as batches:

        def clip_loss(step: int) -> Any:
            return loops.clip_loss(clip, loops.ClipBatch(**batches(step)))

        loops.train(
            {"clip": clip},
            clip_loss,
            loops.Plan(clip_steps, rate=1e-3),
            state / "clip",
            lambda step, loss: tell("mini-clip", step + 1, clip_steps, loss),
        )
    clip_scores = loops.clip_scores(
        clip, loops.ClipBatch(**clip_chunk(seed, "held-out", 0, test).fields)
    )
    mini.save_clip(out / "mini-clip", clip, words, clip_card(seed, clip_steps, clip, clip_scores))

    with _seeded(seed, "pretrain-lmm"):
        lmm = mini.lmm(size)
        lmm.set_attn_implementation(loops.PLAIN)
        aid = loops.Patches(128, len(generic.KINDS), len(generic.TONES))
    opening = torch.tensor(mini.prefix(words))
    with batches_of(lmm_chunk, seed, "pretrain-lmm") as batches:

        def lmm_loss(step: int) -> Any:
            return loops.lmm_loss(lmm, aid, opening, loops.LmmBatch(**batches(step)))

        loops.train(
            {"lmm": lmm, "aid": aid},
            lmm_loss,
            loops.Plan(lmm_steps, rate=2e-3),
            state / "lmm",
            lambda step, loss: tell("mini-lmm", step + 1, lmm_steps, loss),
            lambda step: mini.save_lmm(
                out / "mini-lmm", lmm, words, lmm_card(seed, step + 1, lmm, {})
            ),
        )
    scores = skills(lmm, seed, test)
    mini.save_lmm(out / "mini-lmm", lmm, words, lmm_card(seed, lmm_steps, lmm, scores))
    _end(state)
    return {"mini-lmm": scores, "mini-clip": clip_scores}


@contextmanager
def _seeded(seed: int, purpose: str) -> Iterator[None]:
    """Fresh weights come from torch's global stream; lend it a seed of ours for a moment."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, purpose))
        yield


def skills(model: Any, seed: int, scenes: int) -> dict[str, float]:
    """The share of held-out questions answered exactly right, by skill, and over "all"."""
    import torch

    from fcit.models import mini
    from fcit.models.pretrain import LmmBatch, answered

    words = tokenizer(seed)
    opening = torch.tensor(mini.prefix(words))
    right: dict[str, list[bool]] = {}
    for start in range(0, scenes, BATCH):
        rows = min(BATCH, scenes - start)
        drawn = lmm_chunk(seed, "held-out", start, rows)
        good = answered(model, opening, LmmBatch(**drawn.fields))
        for row in range(rows):
            for part, skill in enumerate(drawn.skills[row]):
                right.setdefault(skill, []).append(bool(good[row, part]))
    scores = {skill: float(np.mean(values)) for skill, values in sorted(right.items())}
    return {"all": float(np.mean([one for values in right.values() for one in values])), **scores}


def _keep_memory() -> None:
    """Let glibc keep freed memory: asking for it anew every step costs a tenth of the time."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            for option, value in ((-3, 1 << 25), (-1, 1 << 30), (-2, 1 << 28)):
                library.mallopt(option, value)


def _begin(state: Path, plan: dict[str, int], resume: bool) -> None:
    """Make room for the state of this plan; keep what the same plan left behind."""
    file = state / "plan.json"
    if file.is_file() and resume:
        left = read_json(file)
        if left != plan:
            raise FcitError(f"{file}: a pretraining of {left} was left here; remove {state}")
    else:
        _end(state)
        write_json(file, plan)


def _end(state: Path) -> None:
    shutil.rmtree(state, ignore_errors=True)
