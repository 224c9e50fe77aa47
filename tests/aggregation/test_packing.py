"""Fewer bytes on the wire, an error that is small and has mean zero, and plain float32 untouched."""

from __future__ import annotations

import pytest
import torch

from fcit.aggregation.packing import (
    SCALE,
    pack,
    pack_message,
    unpack,
    unpack_message,
)
from fcit.types import FcitError, State, Update
from fcit.weights import nbytes


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


BLOCK = {
    "down": torch.randn(8, 100, generator=stream()),
    "up": torch.randn(130, 8, generator=stream()),
}
ODD = {"bias": torch.randn(3, generator=stream()), "count": torch.tensor([3, 500])}


def test_float32_is_what_it_was() -> None:
    state = State({"0": BLOCK}, {"x": ODD})
    update = Update(1, 2, {"0": BLOCK}, {"x": ODD}, {})
    assert (
        pack_message(state, "float32", stream(), State())
        is state
        is unpack_message(state, "float32", State())
    )
    assert pack_message(update, "float32", stream(), state) is update
    assert unpack_message(update, "float32", state) is update


@pytest.mark.parametrize(
    ("wire", "share", "error"), [("bfloat16", 0.5, 2**-8), ("int8", 0.27, 0.03)]
)
def test_bytes_shrink_and_the_error_is_small(wire, share: float, error: float) -> None:
    packed = pack(BLOCK | ODD, wire, stream())
    assert nbytes({k: v for k, v in packed.items() if k.split("#")[0] in BLOCK}) <= share * nbytes(
        BLOCK
    )
    again = unpack(packed, wire)
    assert again.keys() == (BLOCK | ODD).keys()
    assert again["count"].equal(ODD["count"])
    for name, value in BLOCK.items():
        assert again[name].dtype == torch.float32
        assert float((again[name] - value).norm() / value.norm()) < error


def test_int8_rounds_without_bias() -> None:
    draws = [unpack(pack(BLOCK, "int8", stream(k)), "int8")["up"] for k in range(200)]
    one = (draws[0] - BLOCK["up"]).abs().mean()
    many = (torch.stack(draws).mean(dim=0) - BLOCK["up"]).abs().mean()
    assert many < one / 8


def test_zeros_stay_zeros() -> None:
    zeros = {"w": torch.zeros(9, 30)}
    assert unpack(pack(zeros, "int8", stream()), "int8")["w"].equal(zeros["w"])


def test_an_update_travels_as_a_change_of_what_was_received() -> None:
    """A small change of large weights: packed by itself it would drown in the rounding."""
    sent = State({"0": {"w": 100 * torch.randn(40, 64, generator=stream())}})
    down = unpack_message(pack_message(sent, "int8", stream(1), State()), "int8", State())
    moved = 0.01 * torch.randn(40, 64, generator=stream(2))
    update = Update(0, 5, {"0": {"w": down.adapters["0"]["w"] + moved}}, {"new": BLOCK}, {})
    wire = pack_message(update, "int8", stream(3), down)
    assert set(wire.adapters["0"]) == {"w", "w" + SCALE}
    got = unpack_message(wire, "int8", sent)
    change = got.adapters["0"]["w"] - sent.adapters["0"]["w"]
    assert float((change - moved).norm() / moved.norm()) < 0.05
    assert float((got.extras["new"]["up"] - BLOCK["up"]).norm() / BLOCK["up"].norm()) < 0.03


def test_scales_that_fit_no_tensor_are_an_error() -> None:
    packed = pack(BLOCK, "int8", stream())
    for wrong in (packed["up" + SCALE][:-1], torch.ones(17, dtype=torch.int64)):
        with pytest.raises(FcitError, match="up"):
            unpack(packed | {"up" + SCALE: wrong}, "int8")
    del packed["up" + SCALE]
    with pytest.raises(FcitError, match="up has no scales"):
        unpack(packed, "int8")
