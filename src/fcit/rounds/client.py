"""One client's round: the only local training loop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fcit.optimizers.base import Optimizer, groups
from fcit.seeds import numpy_stream, torch_stream
from fcit.types import (
    MOST,
    SHARED_PROJECTOR,
    FcitError,
    Identity,
    Job,
    Sample,
    Turn,
    Update,
    Weights,
)
from fcit.weights import split_prefix

if TYPE_CHECKING:
    from fcit.methods import Method
    from fcit.models.batch import Batch
    from fcit.models.identity import Encoder
    from fcit.models.lmm import LMM

MEGABATCH = 50
"""Samples are sorted by length within this many batches of a shuffled order."""

ALIKE = 64
"""Lengths are compared in steps of so many characters. With exact lengths "yes" and "no" would never
share a batch, and a batch with one answer teaches nothing."""

LETTERS = 4
"""An image token counts as so many characters."""

AHEAD = 32
"""At least so many images are encoded together."""

LOWER_RATE = "begin again with a lower training.lr and another --out"
"""What to do about numbers that are not finite: a resumed run has its own rate."""

OPTIMIZER = "optimizer/"
"""Prefix of the federated optimizer's part of a client's memory; the rest is the method's."""


@dataclass(frozen=True)
class Data:
    """A client's samples for one task, and the paths of their images, one each."""

    samples: Sequence[Sample]
    images: Sequence[Path]


@dataclass(frozen=True)
class Training:
    """The `[training]` section: local training. AdamW and the schedule start anew every turn."""

    lr: Annotated[float, Field(gt=0)] = 2e-4
    """Learning rate of the adapters (AdamW; warm-up, then cosine, in every turn)."""
    projector_lr: Annotated[float, Field(ge=0)] = 2e-5
    """Learning rate of the projector."""
    batch_size: Annotated[int, Field(ge=1, le=MOST)] = 64
    """Samples per step."""
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Passes over a client's data per turn."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of a turn's steps with linear warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Dropout on the input of the adapters."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    max_length: Annotated[int, Field(ge=1, le=MOST)] = 2048
    """Maximum tokens per sample. The ends of longer ones are cut off and not learned; a run says at its
    beginning of how many this is so, a deployment's client in its own log."""
    micro_batch: Annotated[int, Field(ge=0, le=MOST)] = 0
    """Samples per forward pass within a step, to save memory (0 = the whole batch). Without dropout the
    gradient is the same up to rounding; with it, other masks are drawn. With l2p this changes results
    slightly: the key loss then weights samples by answer length."""
    checkpointing: bool = False
    """Gradient checkpointing: recompute activations in the backward pass. Less memory, more time."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads per client. Float sums depend on it, so results do too."""


def identify(method: Method, encoder: Encoder, turn: Turn, data: Data) -> Identity:
    """A client's identity token for a task, made of a frozen encoder's embeddings of its samples."""
    kind = method.identity
    assert kind is not None
    rows = encoder.embed(kind, [sample.prompt for sample in data.samples], data.images)
    return Identity(turn.client, turn.task.name, method.make_token(rows), len(data.samples))


def take_turn(
    job: Job,
    method: Method,
    model: LMM,
    data: Data,
    training: Training,
    seed: int,
    memory: Weights,
    optimizer: Optimizer | None = None,
) -> tuple[Update, Weights]:
    """Train what the server sent on the client's own samples; return the update and its new memory.

    The federated `optimizer` (none: FedAvg) may correct gradients before they are clipped.
    Raises FcitError on a client without samples and on a loss that is not finite.
    """
    import torch

    from fcit.models.device import release_memory

    turn = job.turn
    key = turn.stage, turn.round, turn.client
    where = f"client {turn.client}, stage {turn.stage + 1}, round {turn.round + 1}"
    if not data.samples:
        raise FcitError(f"{where}: the client has no samples of {turn.task.name}")
    memory, optimizer_memory = split_prefix(memory, OPTIMIZER)
    received, expected = method.complete(model, job.received, memory), method.expects(job.received)
    trained = method.trains(received)
    model.receive(received, method.scale, trained, method.projector != "frozen", method.learns_down)
    method.equip(model, received)
    model.checkpointing = training.checkpointing
    control = model.subspaces.control
    control.dropout = training.dropout
    # Drawn on the GPU if the model is there: a GPU would wait for a CPU's draws at every layer.
    drawn_on = model.device if model.device.type == "cuda" else "cpu"
    control.noise = torch_stream(seed, "dropout", *key, device=drawn_on)
    lora, projector = model.adapter_parameters(), model.projector_parameters()
    rates = ((lora, training.lr), (projector, training.projector_lr))
    rated = [{"params": values, "base": rate} for values, rate in rates if values]
    fused = True if model.device.type in ("cpu", "cuda") else None
    adamw = torch.optim.AdamW(rated, lr=0.0, weight_decay=training.weight_decay, fused=fused)
    names = groups(trained, received.projector is not None)
    named = dict(zip(names, (lora, projector), strict=True))
    local = (optimizer or Optimizer()).local(turn, named, received.optimizer, optimizer_memory)
    order = numpy_stream(seed, "batches", *key)
    lengths = rough_lengths(data.samples, model.images.token_counts(data.images))
    plan = batches(lengths, training.batch_size, job.epochs, order)
    losses: list[float] = []
    for step, indices in enumerate(_encoded(model, data, plan)):
        for group in adamw.param_groups:
            group["lr"] = group["base"] * schedule(step, len(plan), training.warmup)
        adamw.zero_grad(set_to_none=True)
        value = 0.0
        for batch, share in _micro_batches(model, data, indices, training.micro_batch):
            loss = method.objective(model, received, memory, batch)
            if share < 1:
                loss = loss * share
            value += float(loss.detach())
            if not math.isfinite(value):
                raise FcitError(
                    f"{where}: the loss is {value} at step {step + 1} of {len(plan)}; "
                    f"{LOWER_RATE} (now {training.lr}), or repair the client's images and resume the run"
                )
            loss.backward()
        local.correct()
        norm = torch.nn.utils.clip_grad_norm_([*lora, *projector], training.max_grad_norm)
        if not norm.isfinite():
            raise FcitError(f"{where}: the gradient's norm is {float(norm)}; {LOWER_RATE}")
        adamw.step()
        release_memory(model.device.type, model.parameters)
        losses.append(value)
    control.noise = None
    model.checkpointing = False
    again = (_batch(model, data, indices) for indices in plan)
    extras, memory = method.report(model, received, memory, again)
    if received.projector is not None:
        extras = extras | {SHARED_PROJECTOR: model.shared_projector()}
    whole = {name: model.adapter(name) for name in trained}
    adapters = {
        name: {key: value for key, value in whole[name].items() if key in like}
        for name, like in expected.adapters.items()
    }
    metrics = {"loss": sum(losses) / len(losses), "steps": float(len(losses))}
    corrections, optimizer_memory = local.report()
    update = Update(turn.client, len(data.samples), adapters, extras, metrics, corrections)
    return update, memory | {OPTIMIZER + key: value for key, value in optimizer_memory.items()}


def told_of_cuts(cut: int, count: int) -> str:
    """What is said where `training.max_length` cuts off answers of training samples; "" without any."""
    if not cut:
        return ""
    return (
        f"training.max_length cuts off the end of an answer of {cut} of {count} training samples, which "
        "is then not learned; raise it in a new run if that matters"
    )


def _encoded(model: LMM, data: Data, plan: Sequence[Sequence[int]]) -> Iterator[Sequence[int]]:
    """A turn's batches; the images of several are encoded together, before the first of them."""
    waiting: list[Sequence[int]] = []
    for number, batch in enumerate(plan, 1):
        waiting.append(batch)
        ahead = [index for indices in waiting for index in indices]
        if len(ahead) >= AHEAD or number == len(plan):
            model.encode_ahead([data.images[index] for index in ahead])
            yield from waiting
            waiting.clear()


def _batch(model: LMM, data: Data, indices: Sequence[int]) -> Batch:
    return model.batch([data.samples[i] for i in indices], [data.images[i] for i in indices])


def _micro_batches(
    model: LMM, data: Data, indices: Sequence[int], size: int
) -> list[tuple[Batch, float]]:
    """A step's samples in batches of at most `size` (0: one), each with its share of the answer tokens.

    Losses are means over answer tokens: weighted by these shares they add up to the whole batch's loss.
    """
    size = size or len(indices)
    batches = [_batch(model, data, indices[at : at + size]) for at in range(0, len(indices), size)]
    tokens = [int((batch.labels[:, 1:] != -100).sum()) for batch in batches]
    return [(batch, count / sum(tokens)) for batch, count in zip(batches, tokens, strict=True)]


def rough_lengths(samples: Sequence[Sample], image_tokens: Sequence[int]) -> list[int]:
    """The lengths of samples with their images, in steps of ALIKE characters."""
    texts = [len(sample.prompt) + len(sample.answers[0]) for sample in samples]
    return [
        (text + LETTERS * count) // ALIKE for text, count in zip(texts, image_tokens, strict=True)
    ]


def batches(lengths: Sequence[int], size: int, epochs: float, rng) -> list[list[int]]:
    """The batches of a turn. `epochs` may be a fraction: the last pass is over some of the samples."""
    whole, rest = _passes(len(lengths), epochs)
    plan = [batch for _ in range(whole) for batch in grouped(lengths, size, rng)]
    some = rng.permutation(len(lengths))[:rest].tolist() if rest else []
    last = grouped([lengths[index] for index in some], size, rng) if some else ()
    return plan + [[some[index] for index in batch] for batch in last]


def steps(samples: int, size: int, epochs: float) -> int:
    """The number of batches of a turn."""
    whole, rest = _passes(samples, epochs)
    return whole * math.ceil(samples / size) + math.ceil(rest / size)


def _passes(samples: int, epochs: float) -> tuple[int, int]:
    """How many whole passes a turn makes, and over how many samples another one (at least one in all)."""
    return divmod(max(1, round(epochs * samples)), samples) if samples else (0, 0)


def grouped(lengths: Sequence[int], size: int, rng) -> Iterator[list[int]]:
    """Batches of similar lengths, in random order; every index once."""
    order = rng.permutation(len(lengths)).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(order), size * MEGABATCH):
        run = sorted(order[start : start + size * MEGABATCH], key=lambda i: -lengths[i])
        batches += [run[at : at + size] for at in range(0, len(run), size)]
    for index in rng.permutation(len(batches)).tolist():
        yield batches[index]


def schedule(step: int, steps: int, warmup: float) -> float:
    """The factor on the learning rate: linear warm-up, then cosine to zero."""
    first = math.ceil(warmup * steps)
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, steps - first)))
