"""Tensors as fewer bytes on their way: bfloat16, or int8 with a scale for every 64 values.

A client sends what it changed, not what it has: a change is small where a weight is not, so that the same
bits say more. Rounding to int8 is up or down by chance, in proportion to how near (Alistarh et al. 2017,
QSGD, arXiv 1610.02132, section 3.1): the error of one message has mean zero, and averages shrink it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Literal

from fcit.types import FcitError, Parts, State, Update, Weights
from fcit.weights import kinds, nbytes

if TYPE_CHECKING:
    from torch import Generator, Tensor, dtype

Wire = Literal["float32", "bfloat16", "int8"]
"""In what form tensors travel; float32: as they are."""

BLOCK = 64
"""How many values, in the order of a tensor's rows, share a scale."""

SCALE = "#scale"
"""End of the name under which an int8 tensor's scales travel."""


def pack(weights: Mapping[str, Tensor], wire: Wire, noise: Generator) -> Weights:
    """Weights in their form on the wire; whole numbers, and tensors of less than a block in int8's
    case, stay as they are."""
    from torch import bfloat16

    if wire == "float32":
        return dict(weights)
    packed: Weights = {}
    for name in sorted(weights):
        value = weights[name]
        if not value.is_floating_point():
            packed[name] = value
        elif wire == "bfloat16":
            packed[name] = value.to(bfloat16)
        elif value.numel() < BLOCK:
            packed[name] = value
        else:
            packed[name], packed[name + SCALE] = _to_int8(value, noise)
    return packed


def unpack(packed: Mapping[str, Tensor], wire: Wire) -> Weights:
    """The inverse of `pack`, in float32. Raises FcitError on scales that fit no tensor."""
    from torch import bfloat16, float32, int8

    weights: Weights = {}
    for name, value in packed.items():
        if name.endswith(SCALE):
            continue
        if wire == "int8" and value.dtype == int8:
            value = _from_int8(name, value, packed.get(name + SCALE))
        weights[name] = value.to(float32) if value.dtype == bfloat16 else value
    return weights


def packed_bytes(weights: Mapping[str, Tensor], wire: Wire) -> int:
    """The bytes that weights take on the wire, whatever their values: each form is packed once."""
    return sum(_bytes_of(value.shape, value.dtype, wire) for value in weights.values())


@cache
def _bytes_of(shape: tuple[int, ...], form: dtype, wire: Wire) -> int:
    from torch import Generator, zeros

    return nbytes(pack({"": zeros(shape, dtype=form)}, wire, Generator()))


def pack_state(state: State, wire: Wire, noise: Generator) -> State:
    """A State in its form on the wire."""
    if wire == "float32":
        return state
    return State(*(_packed(parts, wire, noise) for parts in kinds(state)))


def unpack_state(state: State, wire: Wire) -> State:
    """The inverse of `pack_state`."""
    if wire == "float32":
        return state
    return State(*(_unpacked(parts, wire) for parts in kinds(state)))


def pack_update(update: Update, received: State, wire: Wire, noise: Generator) -> Update:
    """An update in its form on the wire: changes of what was received, all else as it is."""
    if wire == "float32":
        return update
    adapters, extras = (
        _packed(_changes(mine, theirs), wire, noise)
        for mine, theirs in (
            (update.adapters, received.adapters),
            (update.extras, received.extras),
        )
    )
    optimizer = _packed(update.optimizer, wire, noise)
    return replace(update, adapters=adapters, extras=extras, optimizer=optimizer)


def unpack_update(update: Update, sent: State, wire: Wire) -> Update:
    """The inverse of `pack_update` on the server: the changes are added to what it holds itself, so
    that the error of the way down does not stay. Raises FcitError on scales that fit no tensor."""
    if wire == "float32":
        return update
    adapters, extras = (
        _changed(_unpacked(mine, wire), theirs)
        for mine, theirs in ((update.adapters, sent.adapters), (update.extras, sent.extras))
    )
    optimizer = _unpacked(update.optimizer, wire)
    return replace(update, adapters=adapters, extras=extras, optimizer=optimizer)


def _packed(parts: Parts, wire: Wire, noise: Generator) -> dict[str, Weights]:
    return {name: pack(parts[name], wire, noise) for name in sorted(parts)}


def _unpacked(parts: Parts, wire: Wire) -> dict[str, Weights]:
    return {name: unpack(weights, wire) for name, weights in parts.items()}


def _changes(mine: Parts, theirs: Parts) -> dict[str, Weights]:
    return {
        name: {
            key: value - theirs[name][key] if _alike(value, theirs, name, key) else value
            for key, value in weights.items()
        }
        for name, weights in mine.items()
    }


def _changed(changes: Parts, base: Parts) -> dict[str, Weights]:
    """Changes added to what they are changes of; whatever is of another shape or type stays as it is, to
    be found so."""
    return {
        name: {
            key: base[name][key] + value
            if _alike(value, base, name, key) and value.dtype == base[name][key].dtype
            else value
            for key, value in weights.items()
        }
        for name, weights in changes.items()
    }


def _alike(value: Tensor, parts: Parts, name: str, key: str) -> bool:
    other = parts.get(name, {}).get(key)
    return other is not None and other.shape == value.shape and value.is_floating_point()


def _to_int8(value: Tensor, noise: Generator) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127 in the tensor's shape, and a scale for each block of them."""
    import torch

    blocks = _blocks(value.float())
    scale = blocks.abs().amax(dim=1) / 127
    steps = blocks / torch.where(scale > 0, scale, 1.0)[:, None]
    chance = torch.rand(steps.shape, generator=noise)
    whole = (steps + chance).floor().clamp(-127, 127)
    return whole.flatten()[: value.numel()].reshape(value.shape).to(torch.int8), scale


def _from_int8(name: str, whole: Tensor, scale: Tensor | None) -> Tensor:
    from torch import float32

    blocks = _blocks(whole.float())
    if scale is None or scale.shape != blocks.shape[:1] or scale.dtype != float32:
        raise FcitError(f"tensor {name} has no scales, or not one for each {BLOCK} values")
    return (blocks * scale[:, None]).flatten()[: whole.numel()].reshape(whole.shape)


def _blocks(value: Tensor) -> Tensor:
    from torch.nn.functional import pad

    flat = value.flatten()
    return pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
