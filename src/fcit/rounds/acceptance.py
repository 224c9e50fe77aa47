"""What a reply must look like before the server takes it: whoever falls short is named, not averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcit.aggregation.packing import Wire, unpack_update
from fcit.methods import Method
from fcit.optimizers import Optimizer
from fcit.optimizers.base import groups
from fcit.types import Fault, FcitError, Identity, Job, Parts, State, Turn, Update, Weights
from fcit.weights import kinds, state_bytes

if TYPE_CHECKING:
    from torch import Tensor

MOST_SAMPLES = 2**31
"""From here on a sample count is no count: it would drown everyone else's update."""


@dataclass(frozen=True)
class Reply:
    """An accepted update. size: its bytes on the wire. norm: L2, of all that changed. spread: root mean
    squares, to compare with the others': of the numbers of that change, of the statistics sent beside it
    and of the optimizer's tensors, by these words, where there are any."""

    update: Update
    size: int
    norm: float
    spread: Mapping[str, float]


def bad_token(one: Identity, turns: Mapping[int, Turn]) -> tuple[str, str] | None:
    """What is wrong with an identity token, and how it shows; None where nothing is."""
    import torch

    turn = turns.get(one.client)
    if turn is None or one.task != turn.task.name:
        return "stranger", f"sent a token of {one.task} that nobody asked for"
    if wrong := _bad_count(one.samples):
        return wrong
    if one.token.dtype != torch.float32:
        return "dtype", f"its token is {_form(one.token)}, not float32"
    if one.token.dim() != 1:
        return "shape", f"its token is {_form(one.token)}, not one row of numbers"
    if not torch.isfinite(one.token).all() or not one.token.any():
        return "nonfinite", "its token is not finite, or nothing but zeros"
    return None


def judge(
    update: Update,
    asked: Mapping[int, Job],
    replies: Mapping[int, Reply],
    method: Method,
    optimizer: Optimizer,
    wire: Wire,
) -> Reply | Fault:
    """An update as an accepted reply, or what is wrong with it. The client must have been asked, answer
    once, and send the tensors that the method and the optimizer expect, all of them finite. Whatever
    else comes of looking at it makes it garbled: no reply ends a round."""
    try:
        return _judged(update, asked, replies, method, optimizer, wire)
    except Exception as error:
        return garbled(update.client, error)


def garbled(client: int, error: Exception) -> Fault:
    """The fault of a client whose reply cannot even be judged."""
    return Fault(client, "garbled", str(error) if isinstance(error, FcitError) else repr(error))


def _judged(
    update: Update,
    asked: Mapping[int, Job],
    replies: Mapping[int, Reply],
    method: Method,
    optimizer: Optimizer,
    wire: Wire,
) -> Reply | Fault:
    client = update.client
    if client not in asked:
        return Fault(client, "stranger", "sent an update that nobody asked for")
    if client in replies:
        return Fault(client, "duplicate", "answered twice; the first answer counts")
    job = asked[client]
    size = sum(map(state_bytes, kinds(update)))
    update = unpack_update(update, job.received, wire)
    expected = method.expects(job.received)
    shared = groups(method.trains(job.received), job.received.projector is not None)
    wrong = (
        _bad_count(update.samples)
        or _bad_metrics(update.metrics)
        or _bad_parts("adapter", update.adapters, expected.adapters)
        or _bad_parts("extra", update.extras, expected.extras)
        or _bad_optimizer(update.optimizer, optimizer.reports(shared), job.received)
        or _bad_memory(update.memory or {})
    )
    if wrong:
        return Fault(client, *wrong)
    norm, spread = _sizes(update, job.received)
    if not math.isfinite(norm):
        return Fault(client, "norm", "the norm of its change is too large for a number")
    return Reply(update, size, norm, spread)


def _bad_count(samples: object) -> tuple[str, str] | None:
    if isinstance(samples, bool) or not isinstance(samples, int):
        return "samples", f"says it has {samples!r} samples, which is no number of samples"
    if not 0 < samples < MOST_SAMPLES:
        return "samples", f"says it has {samples} samples"
    return None


def _bad_metrics(metrics: Mapping[str, object]) -> tuple[str, str] | None:
    for name, value in metrics.items():
        if isinstance(value, int) and abs(value) >= MOST_SAMPLES:
            return "nonfinite", f"its {name} is too large a number"
        if not isinstance(value, int | float) or not math.isfinite(value):
            return "nonfinite", f"its {name} is {value!r}"
    return None if "loss" in metrics else ("keys", "says no loss")


def _bad_parts(what: str, came: Parts, expected: Parts) -> tuple[str, str] | None:
    import torch

    if wrong := _odd_key(came, expected, what):
        return wrong
    for name, weights in expected.items():
        if wrong := _odd_key(came[name], weights, f"{what} {name}: tensor"):
            return wrong
        for key, like in weights.items():
            value = came[name][key]
            if value.shape != like.shape or value.dtype != like.dtype:
                kind = "shape" if value.shape != like.shape else "dtype"
                return kind, f"{what} {name}: {key} is {_form(value)}, not {_form(like)}"
            if not torch.isfinite(value).all():
                return "nonfinite", f"{what} {name}: {key} holds numbers that are not finite"
    return None


def _odd_key(
    came: Mapping[str, object], expected: Mapping[str, object], what: str
) -> tuple[str, str] | None:
    odd = sorted(came.keys() ^ expected.keys())
    if not odd:
        return None
    return "keys", f"{what} {odd[0]} {'was not asked for' if odd[0] in came else 'is missing'}"


def _bad_optimizer(came: Parts, allowed: Sequence[str], received: State) -> tuple[str, str] | None:
    import torch

    trained = (*received.adapters.values(), *received.extras.values())
    types = {torch.float32} | {value.dtype for part in trained for value in part.values()}
    for group, slots in came.items():
        if group not in allowed:
            return "keys", f"optimizer: {group} was not asked for"
        for key, value in slots.items():
            if value.dtype not in types:
                return "dtype", f"optimizer: {group}: {key} is {_form(value)}"
            if not torch.isfinite(value).all():
                return "nonfinite", f"optimizer: {group} holds numbers that are not finite"
        mine = received.optimizer.get(group)
        if mine is not None and forms(slots) != forms(mine):
            return "shape", f"optimizer: {group} is not of the form it was sent in"
    return None


def _bad_memory(memory: Weights) -> tuple[str, str] | None:
    import torch

    for name, value in memory.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            return "nonfinite", f"its memory: {name} holds numbers that are not finite"
    return None


def _sizes(update: Update, received: State) -> tuple[float, dict[str, float]]:
    """The L2 norm of what changed, and the spread of all that came (see `Reply`)."""
    change = [0.0, 0]
    for mine, theirs in ((update.adapters, received.adapters), (update.extras, received.extras)):
        for name in sorted(mine.keys() & theirs.keys()):
            for key, value in mine[name].items():
                _add(change, value - theirs[name][key])
    statistics, optimizer = [0.0, 0], [0.0, 0]
    for name in sorted(update.extras.keys() - received.extras.keys()):
        for value in update.extras[name].values():
            _add(statistics, value)
    for slots in update.optimizer.values():
        for value in slots.values():
            _add(optimizer, value)
    norm = math.sqrt(change[0])
    found = {"change": change, "statistics": statistics, "optimizer": optimizer}
    return norm, {what: math.sqrt(sum_) / math.sqrt(n) for what, (sum_, n) in found.items() if n}


def _add(sums: list[float], value: Tensor) -> None:
    sums[0] += float(value.double().square().sum())
    sums[1] += value.numel()


def _form(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


def forms(weights: Mapping[str, Tensor]) -> tuple[tuple[str, str], ...]:
    """Names, types and shapes of tensors, to compare."""
    return tuple((key, _form(value)) for key, value in sorted(weights.items()))
