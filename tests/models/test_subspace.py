"""LoRA in rank blocks: the mathematics of one layer, blocks in and out, and PEFT's own reading."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fcit.models.saving import save_peft
from fcit.models.subspace import SubspaceLinear, Subspaces, adapted_layers
from fcit.seeds import torch_stream
from fcit.types import FcitError
from fcit.weights import PEFT_PREFIX, load


def toy() -> tuple[nn.Module, Subspaces]:
    torch_seeded = torch_stream(0, "toy")
    model = nn.ModuleDict({"up": nn.Linear(6, 10), "down": nn.Linear(10, 6)})
    for value in model.parameters():
        value.requires_grad_(False).normal_(generator=torch_seeded)
    return model, Subspaces(model, dict(model.items()))


def block(spaces: Subspaces, seed: int) -> dict[str, torch.Tensor]:
    noise = torch_stream(seed, "block")
    return {k: torch.randn(v.shape, generator=noise) for k, v in spaces.blank(2, 1, noise).items()}


def delta(part: dict[str, torch.Tensor], path: str, scale: float) -> torch.Tensor:
    a = part[f"{PEFT_PREFIX}{path}.lora_A.weight"]
    return scale * part[f"{PEFT_PREFIX}{path}.lora_B.weight"] @ a


def test_a_gate_scales_every_block_per_sample() -> None:
    model, spaces = toy()
    blocks = {name: block(spaces, i) for i, name in enumerate("xyz")}
    spaces.load(blocks, 2.0)
    gate = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    spaces.control.gate = gate
    x = torch.randn(2, 4, 6, generator=torch_stream(1, "x"))
    layer = model["up"]
    for row in range(2):
        want = layer.base(x[row])
        for k, name in enumerate("xyz"):
            want = want + gate[row, k] * x[row] @ delta(blocks[name], "up", 2.0).T
        torch.testing.assert_close(layer(x)[row], want)


def test_a_gate_changed_in_place_or_for_another_is_seen() -> None:
    model, spaces = toy()
    blocks = {name: block(spaces, i) for i, name in enumerate("xy")}
    spaces.load(blocks, 2.0)
    x = torch.randn(2, 4, 6, generator=torch_stream(1, "x"))
    gate = torch.tensor([[1.0, 0.0]] * 2)
    spaces.control.gate = gate
    first = model["up"](x)
    gate[:, 0], gate[:, 1] = 0.0, 1.0
    second = model["up"](x)
    torch.testing.assert_close(second, model["up"].base(x) + x @ delta(blocks["y"], "up", 2.0).T)
    spaces.control.gate = torch.tensor([[1.0, 0.0]] * 2)
    assert torch.equal(model["up"](x), first)
    assert not torch.allclose(first, second)


def test_frozen_blocks_are_cast_once_and_new_ones_anew() -> None:
    model, spaces = toy()
    model.bfloat16()
    spaces.load({"0": block(spaces, 0)}, 2.0)
    x = torch.randn(2, 4, 6, generator=torch_stream(1, "x")).bfloat16()
    first = model["up"](x)
    cast = model["up"].cast
    assert torch.equal(model["up"](x), first)
    assert model["up"].cast is cast
    assert all(value.dtype == torch.float32 for value in spaces.block("0").values())
    spaces.load({"0": block(spaces, 1)}, 2.0)
    assert not torch.equal(model["up"](x), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scaling_where_it_is_narrow_moves_no_bit_for_a_power_of_two(dtype: torch.dtype) -> None:
    model, spaces = toy()
    model.to(dtype)
    part = block(spaces, 0)
    spaces.load({"0": part}, 2.0)
    x = torch.randn(3, 5, 6, generator=torch_stream(1, "x")).to(dtype)
    a, b = (part[f"{PEFT_PREFIX}up.lora_{side}.weight"].to(dtype) for side in "AB")
    linear = torch.nn.functional.linear
    wide = model["up"].base(x) + linear(linear(x, a), b) * 2.0
    assert torch.equal(model["up"](x), wide)


def test_no_gate_is_a_gate_of_ones() -> None:
    model, spaces = toy()
    spaces.load({name: block(spaces, i) for i, name in enumerate("xy")}, 1.0)
    x = torch.randn(3, 2, 6, generator=torch_stream(2, "x"))
    open_all = model["up"](x)
    spaces.control.gate = torch.ones(3, 2)
    torch.testing.assert_close(model["up"](x), open_all)


def test_a_gate_may_differ_per_layer_and_follow_the_activations() -> None:
    model, spaces = toy()
    spaces.load({name: block(spaces, i) for i, name in enumerate("xy")}, 1.0)
    x = torch.randn(2, 3, 6, generator=torch_stream(3, "x"))
    table = {"up": torch.tensor([[1.0, 0.0]] * 2), "down": torch.tensor([[0.0, 1.0]] * 2)}
    spaces.control.gate = table
    by_table = model["down"](model["up"](x))
    spaces.control.gate = lambda layer, _: table[layer]
    torch.testing.assert_close(model["down"](model["up"](x)), by_table)
    router = torch.randn(6, 2, generator=torch_stream(4, "router"))
    spaces.control.gate = lambda _, h: (h @ router).softmax(-1)  # per token, as MoELoRA's
    got = model["up"](x)
    shares = (x @ router).softmax(-1)
    deltas = [delta(spaces.block(name), "up", 1.0) for name in "xy"]
    want = model["up"].base(x) + sum(
        shares[..., k : k + 1] * (x @ d.T) for k, d in enumerate(deltas)
    )
    torch.testing.assert_close(got, want)


def test_only_the_named_block_learns_and_blocks_come_back_as_they_went_in() -> None:
    model, spaces = toy()
    blocks = {name: block(spaces, i) for i, name in enumerate("xyz")}
    spaces.load(blocks, 1.0, train=["y"])
    assert spaces.names == ["x", "z", "y"]
    assert len(spaces.trained()) == 4  # A and B of two layers
    x = torch.randn(2, 3, 6, generator=torch_stream(5, "x"))
    model["down"](model["up"](x)).square().sum().backward()
    torch.optim.SGD(spaces.trained(), lr=1e-3).step()
    for name in "xz":
        for key, value in spaces.block(name).items():
            assert torch.equal(value, blocks[name][key])
    assert any(not torch.equal(v, blocks["y"][k]) for k, v in spaces.block("y").items())


def test_a_fresh_block_changes_nothing() -> None:
    model, spaces = toy()
    x = torch.randn(2, 3, 6, generator=torch_stream(6, "x"))
    before = model["up"](x)
    fresh = spaces.blank(4, 0.01, torch_stream(7, "init"))
    spaces.load({"0": fresh}, 2.0)
    assert torch.equal(model["up"](x), before)
    a = fresh[f"{PEFT_PREFIX}up.lora_A.weight"]
    assert a.std() == pytest.approx(0.01, rel=0.5)


def test_dropout_comes_from_its_own_stream() -> None:
    model, spaces = toy()
    spaces.load({"0": block(spaces, 0)}, 1.0)
    x = torch.ones(4, 50, 6)
    plain = model["up"](x)
    outs = []
    for _ in range(2):
        spaces.control.dropout, spaces.control.noise = 0.5, torch_stream(8, "dropout")
        outs.append(model["up"](x))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], plain)
    base = model["up"].base(x)
    torch.testing.assert_close(
        (outs[0] - base).mean((0, 1)), (plain - base).mean((0, 1)), rtol=0.6, atol=0.6
    )


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share) -> None:
    _, spaces = toy()
    control = spaces.control
    control.dropout, control.noise = share, torch_stream(9, "dropout")
    out = control.drop(torch.ones(7, 301, 101))
    kept = out[out != 0]
    assert torch.equal(kept, kept[:1].expand_as(kept))
    assert float(out.mean()) == pytest.approx(1, abs=0.01)
    assert float((out == 0).float().mean()) == pytest.approx(share, abs=0.005)
    assert not torch.equal(out, control.drop(torch.ones(7, 301, 101)))


def test_dropout_just_below_one_drops_nearly_all_and_stays_finite() -> None:
    _, spaces = toy()
    control = spaces.control
    for dtype in (torch.float16, torch.float32):
        control.dropout, control.noise = 0.999999, torch_stream(9, "dropout")
        out = control.drop(torch.ones(1000, 1000, dtype=dtype))
        assert out.isfinite().all() and 0.9999 < float((out == 0).float().mean()) < 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_dropout_uses_sixteen_bits_of_its_stream_for_a_number(dtype) -> None:
    """Each signed number of 16 bits below the share drops; the others keep x times 1 / (1 - share), and
    their gradient with it."""
    _, spaces = toy()
    control, dropped = spaces.control, round(0.05 * 2**16)
    control.dropout, control.noise = 0.05, torch_stream(10, "dropout")
    x = torch.randn(3, 41, 7, generator=torch_stream(10, "x")).to(dtype).requires_grad_()
    out = control.drop(x)
    out.sum().backward()
    bits = torch.empty(216, dtype=torch.int64)
    bits.random_(-(2**63), None, generator=torch_stream(10, "dropout"))
    drops = (bits.view(torch.int16)[:861] < dropped - 2**15).view(3, 41, 7)
    kept = torch.tensor(1 / (1 - dropped / 2**16), dtype=dtype)
    assert torch.equal(out, torch.where(drops, 0, x.detach() * kept))
    assert torch.equal(x.grad, torch.where(drops, 0, kept.expand(3, 41, 7)))
    assert 0.02 < drops.float().mean() < 0.09


def test_a_block_of_another_model_is_refused_by_name() -> None:
    _, spaces = toy()
    with pytest.raises(FcitError, match="made for another model"):
        spaces.load({"0": {"something.else": torch.zeros(2, 2)}}, 1.0)
    wrong = {key: torch.zeros(3, 3) for key in block(spaces, 0)}
    with pytest.raises(FcitError, match="another shape"):
        spaces.load({"0": wrong}, 1.0)


class Whole(nn.Module):
    """A model around a language model, with the two sizes of its configuration."""

    def __init__(self, decoder: nn.Module, hidden: int, intermediate: int):
        super().__init__()
        self.decoder = decoder
        sizes = SimpleNamespace(hidden_size=hidden, intermediate_size=intermediate)
        self.config = SimpleNamespace(get_text_config=lambda: sizes)

    def get_decoder(self) -> nn.Module:
        return self.decoder


def test_projections_are_found_by_their_shapes_whatever_they_are_called() -> None:
    layer = nn.ModuleDict(
        {
            "attention": nn.ModuleDict({"q": nn.Linear(8, 8), "k": nn.Linear(8, 4)}),
            "mlp": nn.ModuleDict({"wide": nn.Linear(8, 20), "narrow": nn.Linear(20, 8)}),
        }
    )
    decoder = nn.ModuleDict({"blocks": nn.ModuleList([layer]), "head": nn.Linear(8, 20)})
    assert list(adapted_layers(Whole(decoder, 8, 20))) == [
        "decoder.blocks.0.mlp.wide",
        "decoder.blocks.0.mlp.narrow",
    ]
    assert len(adapted_layers(Whole(decoder, 8, [20, 24]))) == 2  # a width for each layer: Gemma 3n
    odd = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(3, 3)])})
    for other in (Whole(odd, 8, 20), Whole(nn.Linear(8, 20), 8, 20)):
        with pytest.raises(FcitError, match="no MLP projections"):
            adapted_layers(other)
    for other in (Whole(decoder, 8, 8), Whole(decoder, 8, 4)):
        with pytest.raises(FcitError, match="cannot be told from attention's"):
            adapted_layers(other)


def test_the_mini_model_has_three_projections_a_layer(lmm) -> None:
    layers = lmm.model.config.get_text_config().num_hidden_layers
    assert len(lmm.subspaces.layers) == 3 * layers
    assert all(isinstance(one, SubspaceLinear) for one in lmm.subspaces.layers.values())


def test_peft_reads_a_saved_block_and_gives_the_same_logits(lmm, tmp_path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    from fcit.models import CHECKPOINTS
    from fcit.types import State

    noise = torch_stream(9, "peft")
    fresh = lmm.subspaces.blank(4, 0.05, noise)
    trained = {k: torch.randn(v.shape, generator=noise) * 0.05 for k, v in fresh.items()}
    lmm.receive(State({"0": trained}), 2.0)
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        ours = lmm.model(input_ids=ids).logits
    save_peft(tmp_path / "adapter", lmm.adapter("0"), 2.0, "mini")
    base = AutoModelForImageTextToText.from_pretrained(
        CHECKPOINTS / "mini-lmm", dtype=torch.float32
    )
    with torch.no_grad():
        plain = base(input_ids=ids).logits
        theirs = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (theirs - plain).abs().max() > 0.1
    again = load(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(again[key], trained[key]) for key in trained)
