"""An estimate of the memory that training takes, from shapes alone."""

from dataclasses import dataclass
from math import prod

from fcit.models.features import MEMORY_BYTES
from fcit.models.size import ModelSize

QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5}
"""Bytes of a weight by `model.quantize`; scales are not counted."""

FRAGMENTATION = (0.35, 3.0)
"""What glibc keeps between a step's tensors on a CPU, as shares of the activations and of the temporary
tensors; fitted to four measured turns (docs/performance.md)."""


@dataclass(frozen=True)
class TrainingStep:
    """What one step of training computes."""

    batch: int
    """Samples in one forward pass."""
    length: int
    """Tokens of the longest sample."""
    answered: int
    """Answer tokens of the whole pass."""
    blocks: int
    """Adapters in the model."""
    trained: int
    """Adapters that learn."""
    rank: int
    projector: bool
    """Whether the projector learns."""
    learns_down: bool
    """Whether the adapters' factors A learn and travel, as their B do."""
    step: int
    """Images of a whole step."""
    images: int
    """Images of the whole run."""
    number: int
    """Bytes of a number."""
    weight: float
    """Bytes of a weight in the language model's matrices."""
    cpu: bool
    """On a CPU attention scores are kept, and its memory also holds messages and cached features."""
    dropout: bool
    checkpointing: bool


def training_memory(size: ModelSize, step: TrainingStep) -> dict[str, int]:
    """Bytes at the peak of a client's turn, by what takes them.

    Counted from what autograd keeps of a Llama-like layer whose own weights are frozen: the inputs of
    norms (in float32), of attention's two products and of its softmax, of the activation and the
    product after it, and of the adapters' factors A with their dropout.
    """
    block = sum(step.rank * (wide + out) for wide, out in size.layers.values())
    learned = sum(step.rank * (wide * step.learns_down + out) for wide, out in size.layers.values())
    projector = sum(prod(shape) for shape in size.projector.values())
    rows, number = step.batch * step.length, step.number
    thin, wide = rows * size.hidden, rows * size.intermediate
    scores = step.batch * size.heads * step.length**2 if step.cpu else 0
    half = number < 4
    mask = (number if step.cpu else 1) if step.dropout else 0
    into = (2 * thin + wide) * (number + mask) if step.dropout else (thin + wide) * number
    layer = (
        2 * thin * 4
        + 3 * thin * number
        + scores * (4 + (number if half else 0))
        + (0 if step.cpu else thin * number)
        + 3 * wide * number
        + into
    )
    temporary = max(4 * wide * number, 2 * scores * 4)
    kept = size.depth * (thin * number if step.checkpointing else layer)
    recomputed = layer if step.checkpointing else 0
    logits = step.answered * size.vocabulary * (4 * 3 + (number if half else 0))
    images = size.features * number
    weights = round((size.parameters - size.matrices) * number + size.matrices * step.weight)
    parts = {
        "base model": weights,
        "adapters": step.blocks * block * 4,
        "gradients and AdamW": 3 * 4 * (step.trained * learned + step.projector * projector),
        "projector": (2 * 4 + number) * projector,
        "received": 4 * (step.blocks * learned + projector) if step.cpu else 0,
        "vision features": step.step * images + min(MEMORY_BYTES, step.images * images) * step.cpu,
        "activations": kept
        + 3 * thin * number
        + 2 * step.batch * size.image_tokens * size.hidden * 4,
        "temporary tensors": max(logits, recomputed + temporary),
    }
    if step.cpu:
        passed = (parts["activations"], parts["temporary tensors"])
        parts["allocator"] = round(sum(a * b for a, b in zip(FRAGMENTATION, passed, strict=True)))
    # A CPU's weights are the mapped file itself, unless they are wanted in another format.
    file = size.parameters * size.stored if step.cpu and size.stored != number else 0
    more = file + parts["base model"] - sum(parts.values())
    return parts | {"more while loading": more} if more > 0 else parts
