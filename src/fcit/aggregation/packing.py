"""Tensors in fewer bytes for transit: bfloat16, or int8 with a scale for every 64 values.

A client sends changes instead of weights: changes are smaller, so the same bits represent them more
exactly. int8 uses stochastic rounding (Alistarh et al. 2017, QSGD, arXiv 1610.02132, section 3.1): the
error has mean zero, and averaging shrinks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeVar

from fcit.types import FcitError, Parts, State, Update, Weights
from fcit.weights import nbytes

if TYPE_CHECKING:
    from torch import Generator, Tensor, dtype

M = TypeVar("M", State, Update)

Wire = Literal["float32", "bfloat16", "int8"]
"""The encoding of tensors in transit; float32: unchanged."""

BLOCK = 64
"""Number of values, in row order, that share a scale."""

SCALE = "#scale"
"""Suffix of the name of an int8 tensor's scales."""


def pack(weights: Mapping[str, Tensor], wire: Wire, noise: Generator) -> Weights:
    """Weights in their form on the wire. Integers stay as they are, and under int8 also tensors of fewer
    values than a block."""
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
    """The bytes that weights take on the wire; each shape and type is packed once to measure it."""
    return sum(_bytes_of(value.shape, value.dtype, wire) for value in weights.values())


@cache
def _bytes_of(shape: tuple[int, ...], form: dtype, wire: Wire) -> int:
    from torch import Generator, zeros

    return nbytes(pack({"": zeros(shape, dtype=form)}, wire, Generator()))


def pack_message(value: M, wire: Wire, noise: Generator, base: State) -> M:
    """A State or Update in its form on the wire. base: what a client received, whose update
    is sent as changes of it; for a State, an empty one."""
    if wire == "float32":
        return value
    return replace(
        value,
        adapters=_packed(_shifted(value.adapters, base.adapters, -1), wire, noise),
        extras=_packed(_shifted(value.extras, base.extras, -1), wire, noise),
        optimizer=_packed(value.optimizer, wire, noise),
    )


def unpack_message(value: M, wire: Wire, base: State) -> M:
    """The inverse of `pack_message`. base: what the server sent; changes are added to its own weights, so
    that the error of the way down does not stay. Raises FcitError on scales that fit no tensor."""
    if wire == "float32":
        return value
    return replace(
        value,
        adapters=_shifted(_unpacked(value.adapters, wire), base.adapters, 1),
        extras=_shifted(_unpacked(value.extras, wire), base.extras, 1),
        optimizer=_unpacked(value.optimizer, wire),
    )


def _packed(parts: Parts, wire: Wire, noise: Generator) -> dict[str, Weights]:
    return {name: pack(parts[name], wire, noise) for name in sorted(parts)}


def _unpacked(parts: Parts, wire: Wire) -> dict[str, Weights]:
    return {name: unpack(weights, wire) for name, weights in parts.items()}


def _shifted(parts: Parts, base: Parts, sign: int) -> dict[str, Weights]:
    """Floating-point tensors plus (or minus) those of `base`. A tensor of another shape or type than its
    base stays as it is, for the checks to find."""

    def shift(name: str, key: str, value: Tensor) -> Tensor:
        other = base.get(name, {}).get(key)
        if other is None or other.shape != value.shape or not value.is_floating_point():
            return value
        if sign < 0:
            return value - other
        return other + value if value.dtype == other.dtype else value

    return {
        name: {key: shift(name, key, value) for key, value in weights.items()}
        for name, weights in parts.items()
    }


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
