"""LLaVA checkpoints of the original project's format, read into transformers' LLaVA.

Their folder holds a LLaMA with a projector beside it, and names a CLIP for a vision tower. Only keys are
renamed, in memory and one file at a time. (Liu et al. 2023, arXiv 2310.03744: LLaVA-1.5.)
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.utils.import_utils import is_protobuf_available, is_sentencepiece_available

from fcit.models.chat import VICUNA
from fcit.types import FcitError

RENAMED = (
    (re.compile(r"^(?:model\.)?mm_projector\.0\."), "model.multi_modal_projector.linear_1."),
    (re.compile(r"^(?:model\.)?mm_projector\.2\."), "model.multi_modal_projector.linear_2."),
    (re.compile(r"^model\.vision_tower\.vision_tower\.(?:vision_model\.)?"), "model.vision_tower."),
    (re.compile(r"^model\.(?=layers\.|norm\.|embed_tokens\.)"), "model.language_model."),
)


def recognise(folder: str | Path) -> bool:
    """Whether a folder is a LLaVA checkpoint of the original format."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    kinds = ("llava", "llava_llama", "llama")
    return (
        isinstance(config, dict)
        and config.get("model_type") in kinds
        and "vision_config" not in config
        and any(key.startswith("mm_") for key in config)
    )


def load(
    folder: Path, clip: str | Path, dtype: torch.dtype, options: dict[str, Any]
) -> tuple[Any, Any]:
    """The model (on the CPU) and a processor that speaks Vicuna v1.

    The vision tower is the config's `mm_vision_tower` where that is a folder, else `clip`, else the name
    in the config. Raises FcitError naming what is missing or of another kind.
    """
    if "device_map" in options:
        raise FcitError(
            "[model] device_map: a LLaVA checkpoint in the original format is read whole; save it "
            "once in transformers' format (docs/models.md), then spread that"
        )
    own = _own(folder)
    tower = _tower(folder, own, clip)
    vision: Any = CLIPVisionModel.from_pretrained(tower, dtype=dtype)
    _alike(folder, own, tower, vision.config)
    tokenizer = _tokenizer(folder)
    config: Any = _config(own, vision.config, tokenizer)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration._from_config(config, **options)
    model.model.vision_tower = vision
    wanted = {name for name, _ in model.named_parameters()}
    held = {name for name in wanted if name.startswith("model.vision_tower.")}
    for path in _files(folder):
        part = {_renamed(key): value.to(dtype) for key, value in _read(path).items()}
        for key, value in part.items():
            if key.endswith(("embed_tokens.weight", "lm_head.weight")):
                part[key] = _grown(value, config.text_config.vocab_size)
        fitting = {key: value for key, value in part.items() if key in wanted}
        try:
            model.load_state_dict(fitting, strict=False, assign=True)
        except RuntimeError as error:
            line = " ".join(str(error).split())
            raise FcitError(f"{path}: does not fit config.json: {line}") from None
        held |= fitting.keys()
    if missing := sorted(wanted - held):
        raise FcitError(
            f"{folder}: {len(missing)} tensors are in none of its files, the first is {missing[0]}"
        )
    _buffers(model, config, dtype)
    return model, _processor(tower, config, tokenizer)


def configure(folder: Path, clip: str | Path) -> tuple[LlavaConfig, Any]:
    """The model's configuration and processor alone, from files on this disk; no weight is read.

    Raises FcitError and OSError as `load` does.
    """
    own = _own(folder)
    tower = _tower(folder, own, clip)
    vision = CLIPVisionConfig.from_pretrained(tower, local_files_only=True)
    tokenizer = _tokenizer(folder)
    config = _config(own, vision, tokenizer)
    return config, _processor(tower, config, tokenizer)


def _own(folder: Path) -> dict[str, Any]:
    """The checkpoint's config.json."""
    own = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = own.get("mm_projector_type", "mlp2x_gelu")
    if kind != "mlp2x_gelu":
        raise FcitError(f"{folder}/config.json: mm_projector_type {kind!r} is not mlp2x_gelu")
    return own


def _processor(tower: str, config: Any, tokenizer: Any) -> LlavaProcessor:
    return LlavaProcessor(
        image_processor=AutoImageProcessor.from_pretrained(tower, backend="pil"),
        tokenizer=tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        chat_template=VICUNA,
    )


def _tokenizer(folder: Path) -> Any:
    """LLaMA's tokenizer, which begins a text with <s>, and the two tokens that it lacks."""
    able = is_sentencepiece_available() and is_protobuf_available()
    if not able and not (folder / "tokenizer.json").is_file():
        raise FcitError(
            f"{folder}/tokenizer.model: reading it needs sentencepiece and protobuf: pip install "
            "'fcit[large]'"
        )
    tokenizer: Any = LlamaTokenizer.from_pretrained(folder, add_bos_token=True)
    tokenizer.add_tokens("<image>", special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer


def _config(own: dict[str, Any], vision: Any, tokenizer: Any) -> LlavaConfig:
    known = set(LlamaConfig().to_dict()) - {"model_type", "architectures", "dtype", "torch_dtype"}
    text = LlamaConfig(**{key: value for key, value in own.items() if key in known})
    text.vocab_size = max(text.vocab_size, len(tokenizer))
    text.pad_token_id = tokenizer.pad_token_id
    feature = own.get("mm_vision_select_feature", "patch")
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=own.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="default" if feature == "patch" else "full",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )


def _tower(folder: Path, own: dict[str, Any], clip: str | Path) -> str:
    named = str(own.get("mm_vision_tower") or "")
    for path in (Path(named), folder / named):
        if named and path.is_dir():
            return str(path)
    if not clip and not named:
        raise FcitError(
            f"{folder}/config.json: names no mm_vision_tower; name the CLIP in [model] identity"
        )
    return str(clip or named)


def _alike(folder: Path, own: dict[str, Any], tower: str, found: Any) -> None:
    """Raise FcitError where a CLIP has other sizes than the name in the config says it has."""
    named = str(own.get("mm_vision_tower") or "")
    sizes = re.search(r"clip-vit-\w+-patch(\d+)(?:-(\d+))?$", named)
    if sizes is None:
        return
    for size, wanted in (("patch_size", sizes[1]), ("image_size", sizes[2] or "224")):
        if int(wanted) != getattr(found, size):
            raise FcitError(
                f"{folder}/config.json: its vision tower is {named}, and {tower} has {size} "
                f"{getattr(found, size)}; name that CLIP in [model] identity"
            )


def _files(folder: Path) -> list[Path]:
    """The checkpoint's files; the projector's own file last, where there is one."""
    found: list[Path] = []
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        found = found or sorted(folder.glob(pattern))
    if not found:
        raise FcitError(f"{folder}: no pytorch_model*.bin or model*.safetensors in it")
    return [*found, *folder.glob("mm_projector.bin")]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything on a broken file
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FcitError(f"{path}: not a checkpoint file of tensors: {line}") from None


def _renamed(key: str) -> str:
    for pattern, name in RENAMED:
        key = pattern.sub(name, key)
    return key


def _grown(rows: Tensor, size: int) -> Tensor:
    """A table with rows for the added tokens: the mean row, which greedy decoding never prefers."""
    extra = rows.mean(dim=0, keepdim=True).expand(size - len(rows), -1)
    return torch.cat([rows, extra]) if len(rows) < size else rows


def _buffers(model: Any, config: LlavaConfig, dtype: torch.dtype) -> None:
    """Buffers are in no checkpoint (rotary frequencies): take them from the same layers made anew."""
    language = model.model.language_model
    language.rotary_emb = type(language.rotary_emb)(config.text_config)
