"""LLaVA-1.5 checkpoints in the original project's format, read into transformers' LLaVA.

Such a folder holds a LLaMA with a projector, and names a CLIP as its vision tower. The tensors are only
renamed, in memory and one file at a time (Liu et al. 2023, arXiv 2310.03744).
"""

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

from fcit.files import kind, read_json
from fcit.models.device import TooLittleMemoryError, lacks_memory
from fcit.models.folders import check_folder, check_tensors, load_weights, pretrained
from fcit.models.templates import VICUNA
from fcit.types import FcitError, extra, first_line, one_line

RENAMED = (
    (re.compile(r"^(?:model\.)?mm_projector\.0\."), "model.multi_modal_projector.linear_1."),
    (re.compile(r"^(?:model\.)?mm_projector\.2\."), "model.multi_modal_projector.linear_2."),
    (re.compile(r"^model\.vision_tower\.vision_tower\.(?:vision_model\.)?"), "model.vision_tower."),
    (re.compile(r"^model\.(?=layers\.|norm\.|embed_tokens\.)"), "model.language_model."),
)


UNREAD = re.compile(r"rotary_emb\.inv_freq$|embeddings\.position_ids$")
"""Tensors of some checkpoints that follow from the configuration."""

PROJECTOR = "mm_projector.bin"

CLIP_TEXT = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
"""A whole CLIP's tensors beside its vision tower."""

UNDERSTOOD: dict[str, tuple[str, ...]] = {
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_vision_select_feature": ("patch", "cls_patch"),
    "mm_patch_merge_type": ("flat",),
    "image_aspect_ratio": ("pad",),
}
"""The values of these keys that are read as LLaVA-1.5; an absent key or null has the first one."""

READ = ("mm_vision_tower", "mm_vision_select_layer", "mm_hidden_size", "mm_text_tower")
TRAINING = ("mm_projector_lr", "mm_vision_tower_lr")
"""Keys that say how the checkpoint was trained."""


def recognize(folder: str | Path) -> bool:
    """Whether a folder is a LLaVA checkpoint in the original format."""
    check_folder(folder)
    path = Path(folder) / "config.json"
    config = read_json(path) if path.exists() else {}
    return (
        config.get("model_type") in ("llava", "llava_llama", "llama")
        and "vision_config" not in config
        and any(key.startswith("mm_") for key in config)
    )


def unsupported(key: str, verb: str) -> FcitError:
    """The error for a key that needs a checkpoint in transformers' format."""
    return FcitError(
        f"[model] {key}: a LLaVA checkpoint in the original format is read whole; save it once in "
        f"transformers' format (docs/models.md), then {verb} that"
    )


def load(
    folder: Path, clip: str | Path, dtype: torch.dtype, options: dict[str, Any]
) -> tuple[Any, Any]:
    """The model (on the CPU) and a processor with Vicuna v1's chat template.

    The vision tower is the config's `mm_vision_tower` where that is a folder, else `clip`, else the name
    in the config. Raises FcitError naming what is missing or does not fit.
    """
    if "device_map" in options:
        raise unsupported("device_map", "spread")
    tower = _tower(folder, clip)
    vision = load_weights(CLIPVisionModel, tower, "identity", CLIP_TEXT, dtype=dtype)
    config, processor = _describe(folder, tower, vision.config)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration._from_config(config, **options)
    model.model.vision_tower = vision
    expected = {name for name, _ in model.named_parameters()}
    clips = {name for name in expected if name.startswith("model.vision_tower.")}
    loaded: set[str] = set()
    for path in _files(folder):
        held = {_renamed(key): value for key, value in read_tensors(path).items()}
        leftover = {key for key in held.keys() - expected if not UNREAD.search(key)}
        check_tensors(f"{path}:", set(), leftover)
        twice = loaded & held.keys()
        if twice and path.name != PROJECTOR:
            raise FcitError(
                f"{path}: {min(twice)} is in another file of the folder too; remove one"
            )
        weights = {key: held[key].to(dtype) for key in expected & held.keys() - twice}
        for key, value in weights.items():
            if key.endswith(("embed_tokens.weight", "lm_head.weight")):
                weights[key] = _add_rows(value, config.text_config.vocab_size)
        try:
            model.load_state_dict(weights, strict=False, assign=True)
        except RuntimeError as error:
            line = " ".join(str(error).split())
            raise FcitError(f"{path}: does not fit config.json: {line}") from None
        loaded |= weights.keys()
    missing = expected - loaded - (clips if loaded.isdisjoint(clips) else set())
    check_tensors(f"{folder}:", missing, set())
    # No checkpoint holds the rotary frequencies: they come from the same layer made anew.
    language = model.model.language_model
    language.rotary_emb = type(language.rotary_emb)(config.text_config)
    return model, processor


def configure(folder: Path, clip: str | Path) -> tuple[Any, Any]:
    """The model's configuration and processor alone, from files on this disk; no weight is read.

    Raises FcitError and OSError as `load` does.
    """
    tower = _tower(folder, clip)
    vision = pretrained(CLIPVisionConfig, tower, "identity", local_files_only=True)
    return _describe(folder, tower, vision, local_files_only=True)


def _describe(folder: Path, tower: str, vision: Any, **options: bool) -> tuple[Any, Any]:
    """The configuration and the processor of this checkpoint with this vision tower."""
    original = read_json(folder / "config.json")
    _check_keys(folder / "config.json", original)
    _check_tower(folder, original, tower, vision)
    tokenizer = _tokenizer(folder)
    known = set(LlamaConfig().to_dict()) | {
        "rope_theta",
        "rope_scaling",
    }  # into its rope_parameters
    known -= {"model_type", "architectures", "dtype", "torch_dtype"}
    text = LlamaConfig(**{key: value for key, value in original.items() if key in known})
    text.vocab_size = max(text.vocab_size, len(tokenizer))
    text.pad_token_id = tokenizer.pad_token_id
    feature = original.get("mm_vision_select_feature") or "patch"
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=_layer(folder, original, vision.num_hidden_layers),
        vision_feature_select_strategy="default" if feature == "patch" else "full",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )
    processor = LlavaProcessor(
        image_processor=pretrained(AutoImageProcessor, tower, "identity", backend="pil", **options),
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        chat_template=VICUNA,
    )
    return config, processor


def _tokenizer(folder: Path) -> Any:
    """LLaMA's tokenizer, which begins a text with <s>, and the two tokens that it lacks."""
    able = is_sentencepiece_available() and is_protobuf_available()
    if not able and not (folder / "tokenizer.json").is_file():
        raise FcitError(
            f"{folder}/tokenizer.model: reading it needs sentencepiece and protobuf: "
            f"{extra('large')}"
        )
    tokenizer = pretrained(LlamaTokenizer, folder, add_bos_token=True)
    tokenizer.add_tokens("<image>", special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return tokenizer


def _tower(folder: Path, clip: str | Path) -> str:
    """The folder or hub id of the vision tower."""
    named = str(read_json(folder / "config.json").get("mm_vision_tower") or "")
    for path in (Path(named), folder / named):
        if named and path.is_dir():
            return str(path)
    if not clip and not named:
        raise FcitError(
            f"{folder}/config.json: names no mm_vision_tower; name the CLIP in [model] identity"
        )
    return str(clip or named)


def _check_keys(path: Path, original: dict[str, Any]) -> None:
    """Raise FcitError for a value that makes it another model than LLaVA-1.5 (such as LLaVA-1.6's)."""
    if not isinstance(named := original.get("mm_vision_tower"), str | None):
        raise FcitError(f"{path}: mm_vision_tower must be text, not {kind(named)}")
    for key, value in original.items():
        unset = value is None or value is False or not key.startswith(("mm_", "image_"))
        if unset or key in (*READ, *TRAINING) or value in UNDERSTOOD.get(key, ()):
            continue
        known = " or ".join(UNDERSTOOD.get(key, ()))
        raise FcitError(
            f"{path}: {key} {one_line(repr(value))} is not {known or 'understood'}; only "
            "LLaVA-1.5 is read from the original format, other models from transformers' own"
        )


def _layer(folder: Path, original: dict[str, Any], count: int) -> int:
    """The vision tower's layer whose output the projector takes, counted as in hidden_states."""
    layer = original.get("mm_vision_select_layer")
    if layer is None:
        return -2
    if isinstance(layer, bool) or not isinstance(layer, int) or not 1 <= abs(layer) <= count:
        raise FcitError(
            f"{folder}/config.json: mm_vision_select_layer {one_line(repr(layer))} is none of its vision "
            f"tower's {count} layers (-1 is the last)"
        )
    return layer


def _check_tower(folder: Path, original: dict[str, Any], tower: str, vision: Any) -> None:
    """Raise FcitError where a CLIP has other sizes than the name in the config says."""
    named = str(original.get("mm_vision_tower") or "")
    sizes = re.search(r"clip-vit-\w+-patch(\d+)(?:-(\d+))?$", named)
    width = original.get("mm_hidden_size")
    expected = {"hidden_size": vision.hidden_size if width is None else width}
    if sizes is not None:
        expected |= {"patch_size": int(sizes[1]), "image_size": int(sizes[2] or "224")}
    for key, number in expected.items():
        if number != getattr(vision, key):
            raise FcitError(
                f"{folder}/config.json: its vision tower is {named}, and {tower} has {key} "
                f"{getattr(vision, key)}; name that CLIP in [model] identity"
            )


def _files(folder: Path) -> list[Path]:
    """The checkpoint's files; the projector's own file last, where there is one: what it held before
    is in the others too, and is not read (as in LLaVA's builder.py)."""
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise FcitError(f"{folder}: no pytorch_model*.bin or model*.safetensors in it")
    return [*files, *folder.glob(PROJECTOR)]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's file, on the CPU; code in it is not run. Raises FcitError."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
        return {str(key): value.detach() for key, value in held.items()}
    except Exception as error:  # torch raises nearly anything on a broken file
        if lacks_memory(error):
            raise TooLittleMemoryError(f"{path}: {first_line(error)}") from None
        raise FcitError(f"{path}: not a checkpoint file of tensors: {first_line(error)}") from None


def _renamed(key: str) -> str:
    for pattern, name in RENAMED:
        key = pattern.sub(name, key)
    return key


def _add_rows(rows: Tensor, size: int) -> Tensor:
    """A table with rows for the added tokens: the mean row, which greedy decoding never prefers."""
    extra = rows.mean(dim=0, keepdim=True).expand(size - len(rows), -1)
    return torch.cat([rows, extra]) if len(rows) < size else rows
