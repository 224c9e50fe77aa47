"""An estimate of the memory that training takes, from shapes alone."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from fcit.planning.estimates import SampleLengths
from fcit.types import Job
from fcit.worker.experiment import Experiment

if TYPE_CHECKING:
    from fcit.models.size import ModelSize

QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5}
"""Bytes of a weight by `model.quantize`; scales are not counted."""

FRAGMENTATION = (0.35, 3.0)
"""What glibc keeps between a step's tensors on a CPU, as shares of the activations and of the temporary
tensors; fitted to four measured turns (docs/performance.md)."""


def training_memory(
    experiment: Experiment,
    size: ModelSize,
    lengths: SampleLengths,
    last: Job,
    samples: int,
    number: int,
    device: str,
) -> dict[str, int]:
    """Bytes at the peak of a client's turn, in the run's heaviest training step, by what takes them.

    last: a job of the last stage. samples: of the whole run (0: unknown). number: bytes of one number.

    Counted from what autograd keeps of a Llama-like layer whose own weights are frozen: the inputs of
    norms (in float32), of attention's two products and of its softmax, of the activation and the
    product after it, and of the adapters' factors A with their dropout.
    """
    from fcit.models.features import MEMORY_BYTES

    training, method = experiment.config.training, experiment.method
    # On a CPU attention scores are kept, and its memory also holds messages and cached features.
    cpu, half = device == "cpu", number < 4
    # The adapters in the model, and those that learn.
    blocks, trained = len(last.received.adapters), len(method.trains(last.received))
    block = sum(method.rank * (wide + out) for wide, out in size.layers.values())
    # The factors A travel like B where they learn.
    learned = sum(
        method.rank * (wide * method.learns_down + out) for wide, out in size.layers.values()
    )
    projector = sum(prod(shape) for shape in size.projector.values())
    learned_projector = projector * (method.projector in ("shared", "isolated"))
    # The samples of one forward pass, and their tokens.
    batch = min(training.micro_batch or training.batch_size, training.batch_size)
    rows = batch * lengths.longest
    thin, wide = rows * size.hidden, rows * size.intermediate
    scores = batch * size.heads * lengths.longest**2 if cpu else 0
    dropout = training.dropout > 0
    mask = (number if cpu else 1) if dropout else 0
    into = (2 * thin + wide) * (number + mask) if dropout else (thin + wide) * number
    layer = (
        2 * thin * 4
        + 3 * thin * number
        + scores * (4 + (number if half else 0))
        + (0 if cpu else thin * number)
        + 3 * wide * number
        + into
    )
    temporary = max(4 * wide * number, 2 * scores * 4)
    kept = size.depth * (thin * number if training.checkpointing else layer)
    recomputed = layer if training.checkpointing else 0
    answered = batch * lengths.longest_answer
    logits = answered * size.vocabulary * (4 * 3 + (number if half else 0))
    image = size.features * number
    # Where it is unknown how many images there are: more than the feature cache holds.
    cached = min(MEMORY_BYTES, (samples or MEMORY_BYTES) * image) if cpu else 0
    matrix = QUANTIZED_BYTES.get(experiment.config.model.quantize, number)
    weights = round((size.parameters - size.matrices) * number + size.matrices * matrix)
    parts = {
        "base model": weights,
        "adapters": blocks * block * 4,
        "gradients and AdamW": 3 * 4 * (trained * learned + learned_projector),
        "projector": (2 * 4 + number) * projector,
        "received": 4 * (blocks * learned + projector) if cpu else 0,
        "vision features": training.batch_size * image + cached,
        "activations": kept + 3 * thin * number + 2 * batch * size.image_tokens * size.hidden * 4,
        "temporary tensors": max(logits, recomputed + temporary),
    }
    if cpu:
        passed = (parts["activations"], parts["temporary tensors"])
        parts["allocator"] = round(sum(a * b for a, b in zip(FRAGMENTATION, passed, strict=True)))
    # A CPU's weights are the mapped file itself, unless they are wanted in another format.
    file = size.parameters * size.stored if cpu and size.stored != number else 0
    more = file + parts["base model"] - sum(parts.values())
    return parts | {"more while loading": more} if more > 0 else parts
