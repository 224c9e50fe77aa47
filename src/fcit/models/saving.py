"""A trained model written for use without fcit: a PEFT adapter, or merged weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import PrefixChange

from fcit.files import write_json
from fcit.models.lmm import LMM
from fcit.models.processors import save_video_settings
from fcit.models.subspace import SubspaceLinear
from fcit.models.templates import VICUNA
from fcit.types import FcitError, Weights
from fcit.weights import PEFT_PREFIX, factors, save


def save_peft(
    folder: Path,
    block: Weights,
    scale: float,
    base: str,
    projector: Weights | None = None,
    projector_paths: Mapping[str, str] | None = None,
) -> None:
    """Write one block as a standard PEFT LoRA adapter folder (adapter_config.json + safetensors).

    projector: tensors that replace those of the modules in `projector_paths` (path -> prefix of its
    tensors' names), by PEFT's modules_to_save.
    """
    replaced = {
        f"{PEFT_PREFIX}{path}.{name.removeprefix(prefix)}": value
        for path, prefix in (projector_paths or {}).items()
        for name, value in (projector or {}).items()
        if name.startswith(prefix)
    }
    assert len(replaced) == len(projector or {})
    pairs = factors(block)
    rank = next(iter(pairs.values()))[0].shape[0]
    alpha = scale * rank
    save(folder / "adapter_model.safetensors", block | replaced)
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(pairs),
        "inference_mode": True,
    }
    if replaced:
        config["modules_to_save"] = list(projector_paths or {})
    write_json(folder / "adapter_config.json", config)


@torch.no_grad()
def save_merged(
    model: LMM,
    folder: Path,
    dtype: torch.dtype,
    start: str = "the model",
    adapters: bool = True,
) -> None:
    """Write W + scale sum_k gate_k B_k A_k for every adapted W, and the projector, as a folder that
    transformers loads, processor included. The gate must be set, for one sample: [1, K].

    adapters: False leaves every W as it is. The model cannot be used afterwards. Raises FcitError, which
    begins with `start`, when no single set of weights answers as the model does: gates or prompts depend
    on the input, outputs of several projectors are mixed, or the weights are quantized.
    """
    gate = model.gate
    start += " cannot be merged:"
    if callable(gate) or model.prompts is not None:
        raise FcitError(
            f"{start} its gates or prompts depend on the input, so no single set of weights does"
        )
    if getattr(model.model, "is_quantized", False):
        raise FcitError(
            f"{start} the weights in the base model's folder are quantized; name one with float weights"
        )
    _restore_projector(model, start)
    for path, layer in model.subspaces.layers.items():
        if adapters:
            shares = gate[path] if isinstance(gate, Mapping) else gate
            layer.base.weight.data = (layer.base.weight.float() + _delta(layer, shares)).to(dtype)
        model.model.set_submodule(path, layer.base)
    _restore_clip_names(model.model)
    model.model.to(dtype).save_pretrained(folder)
    save_processor(model, folder)


def _restore_clip_names(model: Any) -> None:
    """Let a CLIP tower's weights be saved as `vision_tower.vision_model.*`, as published checkpoints name
    them: vLLM and transformers before 5.20 read no others.

    transformers itself saves them so only where it read them so, which is not the case with the mini
    model and with LLaVA's original format. It reads both.
    """
    if not any(isinstance(part, CLIPVisionModel) for part in model.modules()):
        return
    every = get_model_conversion_mapping(model, add_legacy=False)
    made = getattr(model, "_weight_conversions", None)
    if made is None:
        model._weight_conversions = every
    elif not any(isinstance(each, PrefixChange) for each in made):
        model._weight_conversions = made + [
            each for each in every if isinstance(each, PrefixChange)
        ]


def save_processor(model: LMM, folder: Path) -> None:
    """Write a model's processor, with the chat template that the run used."""
    model.processor.chat_template = model.chat.template
    if model.chat.template == VICUNA:  # what follows the image is tokenized as a text of its own
        model.chat.tokenizer.legacy = model.chat.tokenizer.init_kwargs["legacy"] = True
    model.processor.save_pretrained(folder)
    save_video_settings(model.processor, folder)


def _delta(layer: SubspaceLinear, shares: Tensor | None) -> Tensor:
    """scale sum_k shares_k B_k A_k of one layer: [out, in] for shares [1, K] (None: all 1)."""
    if layer.frozen is None:
        return torch.zeros_like(layer.base.weight, dtype=torch.float32)
    a, b = layer.frozen
    if shares is not None:
        a = a * shares[0].to(a).repeat_interleave(layer.rank)[:, None]
    return layer.scale * (b @ a)


def _restore_projector(model: LMM, start: str) -> None:
    """Put the one projector that is in use into the model."""
    chosen = 0
    if len(model.projectors) > 1:
        shares = model.gate[0].tolist() if isinstance(model.gate, Tensor) else []
        if sorted(shares)[:-1] != [0.0] * (len(model.projectors) - 1):
            raise FcitError(
                f"{start} its subspaces have projectors of their own, and no single projector is a "
                "mixture of their outputs; export a single subspace, or all"
            )
        chosen = max(range(len(shares)), key=shares.__getitem__)
    for name, value in model.projector(chosen).items():
        model.vision.weights()[name].data = value.detach().clone()
