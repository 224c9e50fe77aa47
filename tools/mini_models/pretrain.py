"""Train the mini model and the mini CLIP on the generic mixture (`python -m tools.mini_models`)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fcit.files import read_json, write_json
from fcit.models.device import keep_memory
from fcit.seeds import lent
from fcit.types import FcitError
from tools.mini_models import generic
from tools.mini_models.chunks import (
    BATCH,
    batches_of,
    clip_chunk,
    lmm_chunk,
    names,
    sight_chunk,
    tokenizer,
)

if TYPE_CHECKING:
    from rich.progress import TaskID

SIGHT_STEPS, LMM_STEPS, CLIP_STEPS = 3000, 8500, 400
"""What made the checkpoints in the package."""
SIGHT_BATCH = 64
Progress = Callable[[str, int, int, float], None]
"""Hears of (model, step, steps, loss) after every step; bars are drawn where none is given."""


def pretrain(
    out: Path,
    seed: int = 0,
    sight_steps: int = SIGHT_STEPS,
    lmm_steps: int = LMM_STEPS,
    clip_steps: int = CLIP_STEPS,
    progress: Progress | None = None,
    test: int = 1024,
) -> dict[str, dict[str, float]]:
    """Train both models and write `out/mini-lmm` and `out/mini-clip`; returns held-out figures.

    The LMM's vision tower first learns patch labels alone (`sight_steps`), which is cheap; without this
    it stays blind for long. Then the whole model learns to answer (`lmm_steps`). `out/mini-lmm` is
    written every minute, so that it can be tried early. `out/.pretrain` holds the state for resuming
    until the end. `test` scenes are held out. Raises FcitError for step counts below one, for a state
    of another seed or length, and where finished models are in `out`.
    """
    plan = {
        "seed": seed, "sight_steps": sight_steps, "lmm_steps": lmm_steps, "clip_steps": clip_steps,
    }  # fmt: skip
    if min(sight_steps, lmm_steps, clip_steps, test) < 1:
        raise FcitError("sight_steps, lmm_steps, clip_steps and test must be at least 1")
    state = out / ".pretrain"
    _begin(state, plan)
    keep_memory("cpu", 0)
    with nullcontext(progress) if progress else _bars() as tell:
        scores = {
            "mini-lmm": _pretrain_lmm(out, seed, sight_steps, lmm_steps, tell, test),
            "mini-clip": _pretrain_clip(out, seed, clip_steps, tell, test),
        }
    _end(state)
    return scores


@contextmanager
def _bars() -> Iterator[Progress]:
    """A progress bar for each model, with its latest loss."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.2f}"),
    )  # fmt: skip
    with Bars(*columns) as bars:
        made: dict[str, TaskID] = {}

        def tell(model: str, step: int, steps: int, loss: float) -> None:
            if model not in made:
                made[model] = bars.add_task(model, total=steps, loss=loss)
            bars.update(made[model], completed=step, loss=loss)

        yield tell


def _pretrain_lmm(
    out: Path,
    seed: int,
    sight_steps: int,
    lmm_steps: int,
    tell: Progress,
    test: int,
) -> dict[str, float]:
    import torch

    from tools.mini_models import architecture as mini
    from tools.mini_models import losses
    from tools.mini_models.cards import lmm_card
    from tools.mini_models.loop import Plan, train

    words = tokenizer(seed)
    tokens = losses.Names(*(torch.tensor(ids) for ids in names(words)))
    with lent(seed, "pretrain-lmm"):
        model = mini.lmm(words.get_vocab_size())
        model.set_attn_implementation(losses.PLAIN)
        aid = losses.Patches(mini.VISION_WIDTH, len(generic.KINDS), len(generic.TONES))
    opening = torch.tensor(mini.prefix(words))

    def keep(step: int, scores: dict[str, float]) -> None:
        mini.save_lmm(
            out / "mini-lmm", model, words, lmm_card(seed, (sight_steps, step), model, scores)
        )

    with batches_of(sight_chunk, seed, "pretrain-sight", SIGHT_BATCH) as batches:
        train(
            {"tower": model.model.vision_tower, "aid": aid},
            lambda step: losses.sight_loss(model, aid, losses.SightBatch(**batches(step))),
            Plan(sight_steps, rate=2e-3, warm=150),
            out / ".pretrain" / "sight",
            lambda step, loss: tell("mini-lmm's sight", step + 1, sight_steps, loss),
        )
    with batches_of(lmm_chunk, seed, "pretrain-lmm", BATCH) as batches:
        train(
            {"lmm": model, "aid": aid},
            lambda step: losses.lmm_loss(
                model, aid, opening, tokens, losses.LmmBatch(**batches(step))
            ),
            Plan(lmm_steps, rate=2e-3, warm=200),
            out / ".pretrain" / "lmm",
            lambda step, loss: tell("mini-lmm", step + 1, lmm_steps, loss),
            lambda step: keep(step + 1, {}),
        )
    scores = skills(model, seed, test)
    keep(lmm_steps, scores)
    return scores


def _pretrain_clip(out: Path, seed: int, steps: int, tell: Progress, test: int) -> dict[str, float]:
    from tools.mini_models import architecture as mini
    from tools.mini_models import losses
    from tools.mini_models.cards import clip_card
    from tools.mini_models.loop import Plan, train

    words = tokenizer(seed)
    with lent(seed, "pretrain-clip"):
        model = mini.clip(words.get_vocab_size())
    with batches_of(clip_chunk, seed, "pretrain-clip", BATCH) as batches:
        train(
            {"clip": model},
            lambda step: losses.clip_loss(model, losses.ClipBatch(**batches(step))),
            Plan(steps, rate=2e-3, warm=60),
            out / ".pretrain" / "clip",
            lambda step, loss: tell("mini-clip", step + 1, steps, loss),
        )
    held_out = clip_chunk(seed, "held-out", 0, test)
    scores = losses.clip_scores(model, losses.ClipBatch(**held_out.fields))
    mini.save_clip(out / "mini-clip", model, words, clip_card(seed, steps, model, scores))
    return scores


def skills(model: Any, seed: int, scenes: int) -> dict[str, float]:
    """The share of held-out questions answered exactly, by skill, and for "all"."""
    import torch

    from tools.mini_models import architecture as mini
    from tools.mini_models.losses import LmmBatch, answered

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


def _begin(state: Path, plan: dict[str, int]) -> None:
    """Prepare the folder for the state of this plan; keep the state that the same plan left.

    Raises FcitError for the state of another plan, and where finished models would be replaced.
    """
    file = state / "plan.json"
    if file.is_file():
        left = read_json(file)
        if left != plan:
            raise FcitError(f"{file}: a pretraining of {left} was left here; remove {state}")
        return
    for name in ("mini-lmm", "mini-clip"):
        if (state.parent / name).exists():
            raise FcitError(f"{state.parent / name}: exists already; name another folder")
    _end(state)
    write_json(file, plan)


def _end(state: Path) -> None:
    shutil.rmtree(state, ignore_errors=True)
