"""Quantised, spread and video-less models: what can be checked without a GPU, and clear refusals."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import families
import pytest
import torch
from torch import nn
from transformers import Blip2Config, FuyuConfig

from fcit.models import CHECKPOINTS, loading
from fcit.models.lmm import LMM
from fcit.models.size import model_size
from fcit.models.subspace import Subspaces
from fcit.seeds import torch_stream
from fcit.types import FcitError, Sample, State

MINI = CHECKPOINTS / "mini-lmm"


def test_quantised_weights_without_a_gpu_are_refused_in_one_line() -> None:
    for bits in ("8bit", "4bit"):
        with pytest.raises(FcitError, match=f"quantize: {bits} weights need a CUDA GPU") as refused:
            LMM(MINI, quantize=bits)
        assert "\n" not in str(refused.value)
    with pytest.raises(FcitError, match="quantize: '2bit' is none of none, 8bit, 4bit"):
        LMM(MINI, quantize="2bit")


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Blip2Config, "no MLP projections"), (FuyuConfig, r"FuyuConfig.*vision_config")],
)
def test_a_base_that_fcit_cannot_use_is_one_line(kind: type, said: str, tmp_path: Path) -> None:
    """BLIP-2's OPT does not say how wide its MLP is; Fuyu has no vision tower."""
    kind().save_pretrained(tmp_path)
    with pytest.raises(FcitError, match=said):
        model_size(tmp_path)


def test_missing_packages_are_named_with_what_installs_them(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FcitError, match="device_map: needs the package accelerate: pip install"):
        LMM(MINI, device_map="auto")
    with pytest.raises(FcitError, match="quantize: needs the package bitsandbytes: pip install"):
        loading.load(MINI, "cuda", torch.bfloat16, "4bit")


def test_only_the_language_models_layers_are_quantised(family) -> None:
    assert loading.whole_modules(MINI) == [
        "model.vision_tower",
        "model.multi_modal_projector",
        "lm_head",
    ]
    kept = loading.whole_modules(family("Qwen3-VL"))
    assert kept[:2] == ["model.visual", "model.visual.merger"]
    assert kept[-1] == "lm_head"


class Packed(nn.Linear):
    """A matrix as bitsandbytes keeps one: bytes of another shape, unpacked on use."""

    def __init__(self, whole: nn.Linear):
        super().__init__(whole.in_features, whole.out_features, bias=False)
        self.spread = float(whole.weight.detach().abs().max()) / 127
        rounded = (whole.weight.detach() / self.spread).round() + 128
        self.weight = nn.Parameter(rounded.to(torch.uint8).reshape(-1, 1), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = (self.weight.float() - 128).reshape(self.out_features, self.in_features)
        return nn.functional.linear(x, whole * self.spread)


def test_subspaces_stand_beside_quantised_matrices() -> None:
    model = nn.Module()
    model.up = nn.Linear(6, 10, bias=False)
    x, noise = torch.ones(2, 3, 6), torch_stream(0, "noise")
    plain = model.up(x)
    model.up = Packed(model.up)
    subspaces = Subspaces(model, {"up": model.up})
    block = {
        key: torch.randn(value.shape, generator=noise)
        for key, value in subspaces.blank(2, 1.0, noise).items()
    }
    torch.testing.assert_close(model.up(x), plain, rtol=0.1, atol=0.05)
    subspaces.load({"0": block}, 2.0, ["0"])
    model.up(x).sum().backward()
    a, b = (value for value in block.values())
    with torch.no_grad():
        torch.testing.assert_close(model.up(x) - model.up.base(x), x @ a.T @ b.T * 2.0)
    assert all(value.grad is not None for value in subspaces.trained())
    assert model.up.base.weight.dtype == torch.uint8
    assert torch.equal(subspaces.block("0")["base_model.model.up.lora_A.weight"], a)


class Product(torch.autograd.Function):
    """A product that returns a view, as that of bitsandbytes' 8-bit matrices does."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        flat = x.reshape(-1, x.shape[-1]) @ weight.T.float()
        return flat.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return gradient @ ctx.saved_tensors[0].float(), None


def test_subspaces_train_beside_8bit_matrices_whose_product_is_a_view() -> None:
    base = nn.Linear(6, 10, bias=False)
    base.weight = nn.Parameter(torch.ones(10, 6, dtype=torch.int8), requires_grad=False)
    base.forward = lambda x: Product.apply(x, base.weight)
    model = nn.Module()
    model.up = base
    subspaces = Subspaces(model, {"up": base})
    block = {name: value + 1 for name, value in subspaces.blank(2).items()}
    subspaces.load({"0": block}, 0.5, ["0"])
    x = torch.ones(2, 3, 6, requires_grad=True)
    y = model.up(x)
    assert y.unique().tolist() == [6 + 0.5 * 2 * 6]
    y.sum().backward()
    assert x.grad is not None and x.grad.unique().tolist() == [10 + 0.5 * 2 * 10]
    assert all(value.grad is not None for value in subspaces.trained())


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="needs accelerate")
def test_a_model_placed_by_accelerate_trains_and_answers_alike(lmm, suite) -> None:
    from fcit.benchmark import datasets

    spread = LMM(MINI, device_map="auto")
    samples = datasets.read(suite, "IconQA", "train")[:3]
    images = [datasets.image_path(suite, sample) for sample in samples]
    noise = torch_stream(0, "blocks")
    sent = {"0": lmm.subspaces.blank(4, 1.0, noise)}
    runs = []
    for model in (lmm, spread):
        model.receive(State(sent, {"projector": model.base_projector}), 2.0, ["0"], True)
        loss = model.loss(model.batch(samples, images))
        loss.backward()
        runs.append([loss, *(value.grad for value in model.adapter_parameters())])
        assert len(model.generate(["What is it?"], images[:1], 2)) == 1
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize(
    ("places", "fine"),
    [
        ({"": "cpu"}, True),
        ({"model.a": 0, "model.b": 1}, True),
        ({"model.a": 0, "model.b": "cpu"}, False),
        ({"model.a": "cpu", "model.b": "disk"}, False),
    ],
)
def test_a_model_that_the_gpus_do_not_hold_is_refused(
    places: dict, fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlavaForConditionalGeneration as Llava

    monkeypatch.setattr(Llava, "hf_device_map", places, raising=False)
    with contextlib.nullcontext() if fine else pytest.raises(FcitError, match=r"first is model\.b"):
        loading.load(MINI, "cpu", torch.float32)


def test_prompts_before_the_image_are_refused_where_a_grid_places_it(family, suite) -> None:
    from fcit.benchmark import datasets

    samples = datasets.read(suite, "IconQA", "train")[:2]
    images = [datasets.image_path(suite, sample) for sample in samples]
    placed = LMM(family("Qwen2.5-VL"))
    placed.prompts = lambda embeds: embeds[:, :1]
    with pytest.raises(FcitError, match="places image tokens by their grid"):
        placed.loss(placed.batch(samples, images))
    tiled = LMM(family("Idefics3"))
    plain = tiled.loss(tiled.batch(samples, images))
    tiled.prompts = lambda embeds: embeds[:, :1]
    assert not torch.equal(tiled.loss(tiled.batch(samples, images)), plain)


def test_a_model_that_takes_no_image_embeddings_is_refused(tmp_path: Path) -> None:
    import transformers as hf

    made = families.tokenizer(image_token="<image>")
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = hf.BlipConfig(
        vision_config=vision | {"patch_size": 16, "intermediate_size": 16},
        text_config=text | {"vocab_size": len(made), "intermediate_size": 24},
    )
    hf.BlipForConditionalGeneration(config).save_pretrained(tmp_path)
    hf.BlipProcessor(hf.BlipImageProcessorPil(), made).save_pretrained(tmp_path)
    with pytest.raises(
        FcitError, match="BlipForConditionalGeneration takes no image embeddings from outside"
    ):
        LMM(tmp_path)


def test_a_sample_without_its_image_is_named(lmm, tmp_path: Path) -> None:
    sample = Sample("7", "IconQA", "no.png", "What?", ("it",))
    with pytest.raises(FcitError, match="no.png: image cannot be read"):
        lmm.batch([sample], [tmp_path / "no.png"])
