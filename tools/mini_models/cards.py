"""The model cards of the mini checkpoints: how each was made, its size, figures and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEAD = """---
license: apache-2.0
library_name: transformers
---
# {title}

{what}

* Made by `python -m tools.mini_models` of this repository (seed {seed}, {steps} steps of 32 pictures,
  Muon and AdamW, warm-up and cosine, bf16 autocast on a CPU) on the generic mixture of
  `tools.mini_models.generic`: random drawings with captions and short questions, and drills in words
  alone. No outside data, and none of the mini suite's questions; docs/mini.md says what is shared.
* {size:,} parameters, half precision; pictures of 48 x 48 pixels; licence Apache-2.0.
"""


def lmm_card(seed: int, steps: tuple[int, int], model: Any, scores: Mapping[str, float]) -> str:
    """The card of the tiny LLaVA: `steps` of vision alone and of answering, held-out `scores`."""
    what = (
        "A LLaVA small enough to be tuned on a laptop in minutes: a ViT of 4 layers, a two-layer\n"
        "projector and a Llama of 4 layers. It stands in for a real LMM where a benchmark has to\n"
        "run anywhere; it loads with `AutoModelForImageTextToText` and `AutoProcessor`."
    )
    text = _HEAD.format(title="mini-lmm", what=what, seed=seed, steps=steps[1], size=_size(model))
    text += (
        f"* Before that its vision tower alone learnt what each patch shows, {steps[0]} steps of 64\n"
        "  pictures.\n"
        "\n## Limits\nIt knows small drawings, about a thousand English words, and few facts of the\n"
        "world. It answers in a few words. Not for any use but testing and teaching. The figures\n"
        "below (all turns of a drill must be right; rare skills rest on a handful) show what it can.\n"
        "\n## Held-out questions answered exactly right\n\n| skill | percent |\n|---|---|\n"
    )
    return text + "".join(f"| {name} | {100 * value:.1f} |\n" for name, value in scores.items())


def clip_card(seed: int, steps: int, model: Any, scores: Mapping[str, float]) -> str:
    """The card of the tiny CLIP; `scores` are held-out figures by measure."""
    what = (
        "A CLIP small enough to embed instructions in no time: two text layers and three vision\n"
        "layers. It gives the identity tokens of the mini suite; it loads with `CLIPModel`. Pooled\n"
        "text outputs are trained to tell kinds of instructions apart, also in made-up jargon."
    )
    text = _HEAD.format(title="mini-clip", what=what, seed=seed, steps=steps, size=_size(model))
    text += (
        "\n## Limits\nTexts of at most 77 tokens; it tells wordings apart rather than meanings.\n"
        "\n## Held-out\n\n| measure | percent |\n|---|---|\n"
    )
    return text + "".join(f"| {name} | {100 * value:.1f} |\n" for name, value in scores.items())


def _size(model: Any) -> int:
    return sum(tensor.numel() for tensor in model.parameters())
