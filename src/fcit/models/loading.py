"""Base models from folders and hub ids: whole or quantized, on one device or spread over several."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    GenerationConfig,
)

from fcit.models import llava_original
from fcit.models.folders import faults, load_weights, pretrained
from fcit.models.processors import load_processor
from fcit.models.vision import find_projector
from fcit.types import FcitError, extra

BITS = ("none", "8bit", "4bit")


def load(
    folder: str | Path,
    device: str,
    dtype: torch.dtype,
    quantize: str = "none",
    device_map: str = "",
    clip: str | Path = "",
) -> tuple[Any, Any]:
    """A frozen model in evaluation mode, and its processor.

    quantize: "8bit" or "4bit" (NF4) for the language model's matrices, by bitsandbytes (Dettmers et al.
    2023, arXiv 2305.14314); vision tower and projector stay whole. device_map: "auto" or another of
    accelerate's words spreads the model over all devices. clip: the vision tower of a LLaVA checkpoint
    in the original format. Raises FcitError naming the key at fault.
    """
    options: dict[str, Any] = {
        # On a CPU, torch's fused attention is slow to differentiate.
        "attn_implementation": "eager" if device == "cpu" else None,
    }
    if device_map:
        _need("accelerate", "device_map")
        options["device_map"] = device_map
    original = llava_original.recognize(folder)
    if quantize != "none":
        if original:
            raise llava_original.unsupported("quantize", "quantize")
        options["quantization_config"] = _quantization(folder, quantize, device, dtype)
        options.setdefault("device_map", {"": device})
    model: Any
    if original:
        with faults(folder):
            model, processor = llava_original.load(Path(folder), clip, dtype, options)
    else:
        processor = load_processor(folder)
        options["config"] = _config(folder)
        model = load_weights(AutoModelForImageTextToText, folder, dtype=dtype, **options)
    if "device_map" not in options:
        model.to(device)
    _check_placement(getattr(model, "hf_device_map", {}))
    model.generation_config = plain(model.generation_config)
    if (head := model.get_output_embeddings()) is not None:
        head.register_forward_pre_hook(_contiguous_input)
    return model.requires_grad_(False).eval(), processor


TOKENS = (
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens",
)  # fmt: skip
"""Generation settings that say which tokens begin and end an answer, and which never stand in one."""


def plain(given: GenerationConfig | None) -> GenerationConfig | None:
    """A model's generation settings without all but TOKENS. `generate` would take from them what a call
    leaves open, and a penalty for repetition, for one, is not greedy decoding."""
    return given and GenerationConfig(**{key: getattr(given, key, None) for key in TOKENS})


def _config(folder: str | Path) -> Any:
    """A model's configuration. What transformers reads from a GGUF file is dequantized, and yet its
    configuration goes on saying "gguf", also beside another model's: such a model could not be saved."""
    config = pretrained(AutoConfig, folder)
    for part in (config, config.get_text_config()):
        stored = getattr(part, "quantization_config", None)
        if isinstance(stored, dict) and stored.get("quant_method") == "gguf":
            del part.quantization_config
    return config


def _contiguous_input(head: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """While answering, the head gets a slice: the last position of all hidden states. torch multiplies
    a slice row by row, and copies the head's weights for each (2 GB for 16 rows and 32,000 tokens)."""
    return (inputs[0].contiguous(),)


def _check_placement(devices: Mapping[str, Any]) -> None:
    """Offloaded modules have no weights most of the time, so nothing can be adapted beside them."""
    spread = any(str(device) not in ("cpu", "disk") for device in devices.values())
    offloaded = ("cpu", "disk") if spread else ("disk",)
    names = [name for name, device in devices.items() if str(device) in offloaded]
    if names:
        raise FcitError(
            f"[model] device_map: the GPUs have no room for {len(names)} of the model's parts, the first "
            f"is {names[0]}; use a smaller dtype, quantize, or more GPUs"
        )


def _quantization(folder: str | Path, quantize: str, device: str, dtype: torch.dtype) -> Any:
    """bitsandbytes' settings."""
    if quantize not in BITS:
        raise FcitError(f"[model] quantize: {quantize!r} is none of {', '.join(BITS)}")
    if not device.startswith("cuda"):
        raise FcitError(
            f"[model] quantize: {quantize} weights need a CUDA GPU, and the device here is {device}; "
            'set quantize = "none"'
        )
    _need("bitsandbytes", "quantize")
    _need("accelerate", "quantize")
    return BitsAndBytesConfig(
        load_in_8bit=quantize == "8bit",
        load_in_4bit=quantize == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=whole_modules(folder),
    )


def whole_modules(folder: str | Path) -> list[str]:
    """Paths of the modules that are never quantized: vision tower, projector, output head."""
    config = pretrained(AutoConfig, folder)
    with faults(folder):
        model = blank_model(config)
    whole = {model.get_encoder(modality="image"), model.get_output_embeddings()}
    whole |= {module for _, module in find_projector(model)}
    return [name for name, module in model.named_modules() if module in whole]


def blank_model(config: Any) -> Any:
    """A model of this configuration without weights (on torch's meta device)."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config, trust_remote_code=False)


def _need(package: str, key: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise FcitError(f"[model] {key}: needs the package {package}: {extra('large')}")
