"""Which replies the server accepts: all others are rejected, with the client and the reason named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcit.aggregation.packing import Wire, unpack_message
from fcit.aggregation.ranks import widen
from fcit.methods import Method
from fcit.optimizers import Optimizer
from fcit.optimizers.base import groups
from fcit.types import Fault, FcitError, Identity, Job, Parts, State, Turn, Update
from fcit.weights import kinds, state_bytes

if TYPE_CHECKING:
    from torch import Tensor

MOST_SAMPLES = 2**31
"""Counts and metrics from here on are rejected: sums of them could overflow."""

TOKEN_NORMS = (1e-9, 1e9)
"""L2 norms that an identity token may have: beyond them cosines in float32 are wrong."""


class Rejected(Exception):  # noqa: N818
    """A reply is not accepted; its arguments are the kind and the detail of a Fault."""


def fault(client: int, error: Exception) -> Fault:
    """The fault of a client whose reply raised this error, whatever it is: no reply may end a round."""
    if isinstance(error, Rejected):
        return Fault(client, *error.args)
    return Fault(client, "garbled", str(error) if isinstance(error, FcitError) else repr(error))


@dataclass(frozen=True)
class Reply:
    """An accepted update."""

    update: Update
    size: int
    """Its bytes on the wire."""
    norm: float
    """L2 norm of all that changed."""
    spread: Mapping[str, float]
    """Sizes to compare with those of the other clients: its number of `samples`; root mean squares of the
    `change`, of `statistics` sent with it and of the `optimizer`'s tensors, where there are any."""


def check_token(identity: Identity, turns: Mapping[int, Turn], width: int) -> None:
    """Raise on an identity token that the server does not accept. width: how many numbers it has."""
    import torch

    turn, token = turns.get(identity.client), identity.token
    if turn is None or identity.task != turn.task.name:
        raise Rejected("stranger", f"sent a token of {identity.task} that was not asked for")
    _check_count(identity.samples)
    if token.dtype != torch.float32:
        raise Rejected("dtype", f"its token is {_form(token)}, not float32")
    if token.dim() != 1:
        raise Rejected("shape", f"its token is {_form(token)}, not one row of numbers")
    if len(token) != width:
        raise Rejected(
            "shape", f"its token has {len(token)} numbers, this run's tokens have {width}"
        )
    if not torch.isfinite(token).all() or not token.any():
        raise Rejected("nonfinite", "its token is not finite, or all zeros")
    norm, (least, most) = float(token.double().norm()), TOKEN_NORMS
    if not least < norm < most:
        raise Rejected("norm", f"its token has norm {norm:.3g}, not between {least} and {most}")


def check_update(
    update: Update,
    asked: Mapping[int, Job],
    replies: Mapping[int, Reply],
    method: Method,
    optimizer: Optimizer,
    wire: Wire,
) -> Reply:
    """An update as an accepted reply.

    Raises where the client was not asked, answers twice, or does not send exactly the tensors that the
    method and the optimizer expect, all of them finite.
    """
    client = update.client
    if client not in asked:
        raise Rejected("stranger", "sent an update that was not asked for")
    if client in replies:
        raise Rejected("duplicate", "answered twice; the first answer counts")
    received = asked[client].received
    size = sum(map(state_bytes, kinds(update)))
    update = unpack_message(update, wire, received)
    expected = method.expects(received)
    shared = groups(method.trains(received), received.projector is not None)
    _check_count(update.samples)
    _check_metrics(update.metrics)
    _check_parts("adapter", update.adapters, expected.adapters)
    _check_parts("extra", update.extras, expected.extras)
    _check_optimizer(update.optimizer, optimizer.reports(shared), received)
    for name in sorted(expected.extras.keys() - received.extras.keys()):
        if any((value < 0).any() for value in update.extras[name].values()):
            raise Rejected("negative", f"extra {name}: means of squares are not negative")
    for name, value in (update.memory or {}).items():
        _check_finite(value, f"its memory: {name}")
    norm, spread = sizes(update, received, method.trained_extras)
    if not math.isfinite(norm):
        raise Rejected("norm", "the norm of its change is not finite")
    return Reply(widen(update, received), size, norm, spread)


def _check_count(samples: object) -> None:
    if isinstance(samples, bool) or not isinstance(samples, int) or not 0 < samples < MOST_SAMPLES:
        raise Rejected("samples", f"its number of samples is {samples!r}")


def _check_metrics(metrics: Mapping[str, object]) -> None:
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Rejected("nonfinite", f"its {name} is {value!r}")
        if not abs(value) < MOST_SAMPLES:
            raise Rejected("nonfinite", f"its {name} is no number below {MOST_SAMPLES}")
    if "loss" not in metrics:
        raise Rejected("keys", "reports no loss")


def _check_parts(what: str, sent: Parts, expected: Parts) -> None:
    _check_keys(sent, expected, what)
    for name, weights in expected.items():
        _check_keys(sent[name], weights, f"{what} {name}: tensor")
        for key, like in weights.items():
            value = sent[name][key]
            for kind in ("shape", "dtype"):
                if getattr(value, kind) != getattr(like, kind):
                    told = f"{what} {name}: {key} is {_form(value)}, not {_form(like)}"
                    raise Rejected(kind, told)
            _check_finite(value, f"{what} {name}: {key}")


def _check_keys(sent: Mapping[str, object], expected: Mapping[str, object], what: str) -> None:
    if odd := sorted(sent.keys() ^ expected.keys()):
        told = "was not asked for" if odd[0] in sent else "is missing"
        raise Rejected("keys", f"{what} {odd[0]} {told}")


def _check_optimizer(sent: Parts, allowed: Sequence[str], received: State) -> None:
    import torch

    trained = (*received.adapters.values(), *received.extras.values())
    types = {torch.float32} | {value.dtype for weights in trained for value in weights.values()}
    for group, slots in sent.items():
        if group not in allowed:
            raise Rejected("keys", f"optimizer: {group} was not asked for")
        for key, value in slots.items():
            if value.dtype not in types:
                raise Rejected("dtype", f"optimizer: {group}: {key} is {_form(value)}")
            _check_finite(value, f"optimizer: {group}")
        own = received.optimizer.get(group)
        if own is not None and forms(slots) != forms(own):
            raise Rejected("shape", f"optimizer: {group} has other shapes than it was sent with")


def _check_finite(value: Tensor, name: str) -> None:
    if value.is_floating_point() and not value.isfinite().all():
        raise Rejected("nonfinite", f"{name} holds numbers that are not finite")


def sizes(
    update: Update, received: State, trained: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """The L2 norm of what changed, and the spread of all that came (see `Reply`). trained: the extras
    that are weights; others are statistics, also where they answer a request of the same name."""
    sums: dict[str, list[float]] = {}

    def add(what: str, value: Tensor) -> None:
        total = sums.setdefault(what, [0.0, 0])
        total[0] += float(value.double().square().sum())
        total[1] += value.numel()

    weights = {name: update.extras[name] for name in update.extras if name in trained}
    for sent, old in ((update.adapters, received.adapters), (weights, received.extras)):
        for name in sorted(sent):
            for key, value in sent[name].items():
                add("change", value - old[name][key])
    for name in sorted(update.extras.keys() - weights.keys()):
        for value in update.extras[name].values():
            add("statistics", value)
    for slots in update.optimizer.values():
        for value in slots.values():
            add("optimizer", value)
    norm = math.sqrt(sums.get("change", [0.0])[0])
    spread = {what: math.sqrt(total) / math.sqrt(n) for what, (total, n) in sums.items() if n}
    return norm, {"samples": float(update.samples)} | spread


def _form(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


def forms(weights: Mapping[str, Tensor]) -> tuple[tuple[str, str], ...]:
    """Names, types and shapes of tensors, to compare."""
    return tuple((key, _form(value)) for key, value in sorted(weights.items()))
