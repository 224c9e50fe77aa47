"""What training a model takes in memory, from its shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from fcit.models.features import CACHE
from fcit.models.size import Size

BITS = {"8bit": 1.0, "4bit": 0.5}
"""Bytes of a quantised weight, by what `model.quantize` calls it; its scales are not counted."""

HOLES = (0.35, 3.0)
"""What glibc keeps between a step's tensors on a CPU, in parts of the activations and of what passes:
fitted to four measured turns (docs/performance.md)."""


@dataclass(frozen=True)
class Load:
    """One pass of training: samples at once, tokens of the longest, tokens answered in all; `blocks`
    adapters of a rank, of which `trained` learn; whether the projector learns; images of a whole step
    and in all; bytes of a number, and of a weight of the language model's matrices; whether attention's
    scores are kept (on a CPU, whose memory also holds messages and the cache of features), whether there
    is dropout, whether layers are computed again."""

    batch: int
    length: int
    answered: int
    blocks: int
    trained: int
    rank: int
    projector: bool
    step: int
    images: int
    number: int
    weight: float
    scores: bool
    dropout: bool
    checkpointing: bool


def memory(of: Size, load: Load) -> dict[str, int]:
    """Bytes at the peak of a client's turn, by what takes them.

    Counted from what autograd keeps of a Llama-like layer whose own weights are frozen: the inputs of
    norms (in float32), of attention's two products and of its softmax, of the activation and the
    product after it, and of the adapters' factors A with their dropout.
    """
    block = sum(load.rank * (wide + out) for wide, out in of.layers.values())
    head = sum(prod(shape) for shape in of.projector.values())
    rows, number = load.batch * load.length, load.number
    thin, wide = rows * of.hidden, rows * of.intermediate
    scores = load.batch * of.heads * load.length**2 if load.scores else 0
    half = number < 4
    adapted = (4 * thin + 2 * wide) if load.dropout else (thin + wide)
    layer = (
        2 * thin * 4
        + 3 * thin * number
        + scores * (4 + (number if half else 0))
        + (0 if load.scores else thin * number)
        + (3 * wide + adapted) * number
    )
    passing = max(4 * wide * number, 2 * scores * 4)
    kept = of.depth * (thin * number if load.checkpointing else layer)
    again = layer if load.checkpointing else 0
    words = load.answered * of.vocabulary * (4 * 3 + (number if half else 0))
    images = of.features * number
    weights = round((of.parameters - of.matrices) * number + of.matrices * load.weight)
    parts = {
        "base model": weights,
        "adapters": load.blocks * block * 4,
        "gradients and AdamW": 3 * 4 * (load.trained * block + load.projector * head),
        "projector": (2 * 4 + number) * head,
        "received": 4 * (load.blocks * block + head) if load.scores else 0,
        "vision features": load.step * images + min(CACHE, load.images * images) * load.scores,
        "activations": kept + 3 * thin * number + 2 * load.batch * of.image_tokens * of.hidden * 4,
        "passing": max(words, again + passing),
    }
    if load.scores:
        passed = (parts["activations"], parts["passing"])
        parts["allocator"] = round(sum(a * b for a, b in zip(HOLES, passed, strict=True)))
    # A CPU's weights are the mapped file itself, unless they are wanted in another form.
    file = of.parameters * of.stored if load.scores and of.stored != number else 0
    more = file + parts["base model"] - sum(parts.values())
    return parts | {"more, while loading": more} if more > 0 else parts
