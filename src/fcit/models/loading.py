"""Base models from folders and hub ids: whole, in 8 or 4 bits, on one device or spread over several."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from fcit.models import llava_original, processors
from fcit.models.vision import projector
from fcit.types import FcitError

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

    quantize: "8bit" or "4bit" (NF4) keep the language model's matrices so, by bitsandbytes (Dettmers et
    al. 2023, arXiv 2305.14314); vision tower and projector stay as they are. device_map: "auto" or
    another of accelerate's words spreads a model over all devices there are. clip: the vision tower of
    a LLaVA checkpoint in the original format. Raises FcitError naming the key at fault.
    """
    options: dict[str, Any] = {
        # On a CPU, torch's fused attention is slow to differentiate.
        "attn_implementation": "eager" if device == "cpu" else None,
    }
    if device_map:
        _need("accelerate", "device_map")
        options["device_map"] = device_map
    original = llava_original.recognise(folder)
    if quantize != "none":
        if original:
            raise FcitError(
                "[model] quantize: a LLaVA checkpoint in the original format is read whole; save it "
                "once in transformers' format (docs/models.md), then quantise that"
            )
        options["quantization_config"] = _bits(folder, quantize, device, dtype)
        options.setdefault("device_map", {"": device})
    model: Any
    try:
        if original:
            model, processor = llava_original.load(Path(folder), clip, dtype, options)
        else:
            processor = processors.load(folder)
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
            )
            model, found = loaded
            _complete(folder, model, found["missing_keys"])
    except ImportError as error:
        line = " ".join(str(error).split())
        raise FcitError(f"[model] path: {folder} needs a package: {line}") from None
    except (OSError, ValueError, KeyError) as error:
        line = str(error).strip().splitlines()[0]
        if "llava_llama" in line:  # a hub id: only a folder can be looked into
            line = "a LLaVA checkpoint of the original format; download it and name its folder"
        raise FcitError(f"[model] path: {folder} does not load as an LMM: {line}") from None
    if "device_map" not in options:
        model.to(device)
    _whole(getattr(model, "hf_device_map", {}))
    if (head := model.get_output_embeddings()) is not None:
        head.register_forward_pre_hook(_in_one_piece)
    return model.requires_grad_(False).eval(), processor


def _in_one_piece(head: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """While answering, the head gets the last position's slice of all hidden states; torch multiplies a
    slice row by row, and copies the head's weights for every row (2 GB for 16 rows and 32,000 words)."""
    return (given[0].contiguous(),)


def _whole(places: Mapping[str, Any]) -> None:
    """Offloaded modules have no weights while they wait, so nothing can be adapted beside them."""
    spread = any(str(place) not in ("cpu", "disk") for place in places.values())
    away = ("cpu", "disk") if spread else ("disk",)
    off = [name for name, place in places.items() if str(place) in away]
    if off:
        raise FcitError(
            f"[model] device_map: the GPUs have no room for {len(off)} of the model's parts, the first "
            f"is {off[0]}; use a smaller dtype, quantize, or more GPUs"
        )


def _complete(folder: str | Path, model: Any, missing: Iterable[str]) -> None:
    """transformers fills what a checkpoint lacks with random numbers; here that is an error."""
    lacking = sorted(set(missing) & {name for name, _ in model.named_parameters()})
    if lacking:
        raise FcitError(
            f"[model] path: {folder} lacks {len(lacking)} of the model's tensors, the first is "
            f"{lacking[0]}"
        )


def _bits(folder: str | Path, quantize: str, device: str, dtype: torch.dtype) -> Any:
    """bitsandbytes' settings; what is beside the language model's layers stays as it is."""
    from transformers import BitsAndBytesConfig

    if quantize not in BITS:
        raise FcitError(f"[model] quantize: {quantize!r} is none of {', '.join(BITS)}")
    if not device.startswith("cuda"):
        raise FcitError(
            f"[model] quantize: {quantize} weights need a CUDA GPU, and the device here is {device}; "
            'set quantize = "none"'
        )
    _need("bitsandbytes", "quantize")
    _need("accelerate", "quantize")
    kept = unquantised(folder)
    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )


def unquantised(folder: str | Path) -> list[str]:
    """Paths of the modules that no quantisation touches: vision tower, projector, output head."""
    try:
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model: Any = AutoModelForImageTextToText.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        line = str(error).strip().splitlines()[0]
        raise FcitError(f"[model] path: {folder} does not load as an LMM: {line}") from None
    kept = [model.get_encoder(modality="image"), model.get_output_embeddings()]
    kept += [part for _, part in projector(model)]
    return [name for name, module in model.named_modules() if any(module is one for one in kept)]


def _need(package: str, key: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise FcitError(f"[model] {key}: needs the package {package}: pip install 'fcit[large]'")
