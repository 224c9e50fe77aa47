"""What a reply must look like before the server takes it: whoever falls short is named, not averaged."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcit.methods import Method
from fcit.optimisers import Optimiser
from fcit.optimisers.base import groups
from fcit.packing import Wire, unpack_update
from fcit.types import Fault, FcitError, Identity, Job, Parts, State, Turn, Update
from fcit.weights import state_bytes

if TYPE_CHECKING:
    from torch import Tensor

MOST_SAMPLES = 2**31
"""From here on a sample count is no count: it would drown everyone else's update."""


@dataclass(frozen=True)
class Reply:
    """An accepted update. size: its bytes on the wire. norm: L2, of all that changed, in `entries`
    numbers."""

    update: Update
    size: int
    norm: float
    entries: int


def bad_token(one: Identity, turns: Mapping[int, Turn]) -> tuple[str, str] | None:
    """What is wrong with an identity token, and how it shows; None where nothing is."""
    import torch

    turn = turns.get(one.client)
    if turn is None or one.task != turn.task.name:
        return "stranger", f"sent a token of {one.task} that nobody asked for"
    if wrong := _bad_count(one.samples):
        return wrong
    if one.token.dim() != 1 or not one.token.is_floating_point():
        return "shape", f"its token is {_form(one.token)}, not one row of numbers"
    if not torch.isfinite(one.token).all() or not one.token.any():
        return "nonfinite", "its token is not finite, or nothing but zeros"
    return None


def judge(
    update: Update,
    asked: Mapping[int, Job],
    replies: Mapping[int, Reply],
    method: Method,
    optimiser: Optimiser,
    wire: Wire,
) -> Reply | Fault:
    """An update as an accepted reply, or what is wrong with it. The client must have been asked, answer
    once, and send the tensors that the method and the optimiser expect, all of them finite."""
    client = update.client
    if client not in asked:
        return Fault(client, "stranger", "sent an update that nobody asked for")
    if client in replies:
        return Fault(client, "duplicate", "answered twice; the first answer counts")
    job = asked[client]
    size = sum(map(state_bytes, (update.adapters, update.extras, update.optimiser)))
    try:
        update = unpack_update(update, job.received, wire)
    except (FcitError, RuntimeError) as error:  # torch adds no float8 to float32
        return Fault(client, "garbled", str(error))
    expected = method.expects(job.received)
    shared = groups(method.trains(job.received), "projector" in job.received.extras)
    wrong = (
        _bad_count(update.samples)
        or _bad_metrics(update.metrics)
        or _bad_parts("adapter", update.adapters, expected.adapters)
        or _bad_parts("extra", update.extras, expected.extras)
        or _bad_optimiser(update.optimiser, optimiser.reports(shared), job.received.optimiser)
    )
    if wrong:
        return Fault(client, *wrong)
    norm, entries = _change(update, job.received)
    if not math.isfinite(norm):
        return Fault(client, "norm", "the norm of its change is too large for a number")
    return Reply(update, size, norm, entries)


def _bad_count(samples: object) -> tuple[str, str] | None:
    if isinstance(samples, bool) or not isinstance(samples, int):
        return "samples", f"says it has {samples!r} samples, which is no number of samples"
    if not 0 < samples < MOST_SAMPLES:
        return "samples", f"says it has {samples} samples"
    return None


def _bad_metrics(metrics: Mapping[str, object]) -> tuple[str, str] | None:
    for name, value in metrics.items():
        if not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            return "nonfinite", f"its {name} is {str(value)[:20]}"
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


def _bad_optimiser(came: Parts, allowed: Sequence[str], received: Parts) -> tuple[str, str] | None:
    import torch

    for group, slots in came.items():
        if group not in allowed:
            return "keys", f"optimiser: {group} was not asked for"
        if not all(torch.isfinite(value.float()).all() for value in slots.values()):
            return "nonfinite", f"optimiser: {group} holds numbers that are not finite"
        if group in received and forms(slots) != forms(received[group]):
            return "shape", f"optimiser: {group} is not of the form it was sent in"
    return None


def _change(update: Update, received: State) -> tuple[float, int]:
    """The L2 norm of what changed, and of how many numbers."""
    total, entries = 0.0, 0
    for mine, theirs in ((update.adapters, received.adapters), (update.extras, received.extras)):
        for name in sorted(mine.keys() & theirs.keys()):
            for key, value in mine[name].items():
                total += float((value - theirs[name][key]).double().square().sum())
                entries += value.numel()
    return math.sqrt(total), entries


def _form(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


def forms(weights: Mapping[str, Tensor]) -> tuple[tuple[str, str], ...]:
    """Names, types and shapes of tensors, to compare."""
    return tuple((key, _form(value)) for key, value in sorted(weights.items()))
