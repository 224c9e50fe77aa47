"""How large a model is and what training it takes, from its configuration alone: no weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, CLIPConfig, CLIPModel

from fcit.models import looks
from fcit.models.subspace import projections
from fcit.models.vision import projector
from fcit.types import FcitError, Weights
from fcit.weights import PEFT_PREFIX


@dataclass(frozen=True)
class Size:
    """Shapes of a model: parameters of its parts (matrices: of the decoder's Linear layers, which
    quantising makes smaller), the adapted layers (in, out), the projector's tensors, the language model's
    measures, and bytes of a number on disk. Of the image it was asked for: tokens, patches, and numbers
    that reach the projector (0 where no processor tells)."""

    decoder: int
    matrices: int
    vision: int
    others: int
    layers: Mapping[str, tuple[int, int]]
    projector: Mapping[str, tuple[int, ...]]
    depth: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    stored: int
    image_tokens: int = 0
    patches: int = 0
    features: int = 0

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.decoder + self.vision + self.others

    def blank(self, rank: int) -> Weights:
        """A block of adapters of this model's shapes; all zero."""
        block: Weights = {}
        for path, (wide, out) in self.layers.items():
            block[f"{PEFT_PREFIX}{path}.lora_A.weight"] = torch.zeros(rank, wide)
            block[f"{PEFT_PREFIX}{path}.lora_B.weight"] = torch.zeros(out, rank)
        return block

    def blank_projector(self) -> Weights:
        """A projector of this model's shapes; all zero."""
        return {name: torch.zeros(shape) for name, shape in self.projector.items()}


def size(
    folder: str | Path, clip: str | Path = "", picture: tuple[int, int] = looks.PICTURE
) -> Size:
    """The size of a model whose configuration is on this disk, for an image so wide and high; `clip` as
    in `loading.load`. Raises FcitError where there is no such configuration, or where the processor
    refuses such images."""
    try:
        config: Any = looks.config(folder, clip)
        with torch.device("meta"):
            model: Any = AutoModelForImageTextToText.from_config(config)
    except (OSError, ValueError, KeyError, ImportError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        said = "no configuration to plan with (its config.json would do)"
        raise FcitError(f"[model] path: {folder}: {said}: {line}") from None
    decoder, text = model.get_decoder(), config.get_text_config()
    root = next(name for name, part in model.named_modules() if part is decoder)
    found = projections(decoder, text.hidden_size, text.intermediate_size)
    linear = {path: decoder.get_submodule(path) for path in found}
    parts = projector(model)
    learnt = {
        prefix + name: tuple(value.shape)
        for prefix, part in parts
        for name, value in part.named_parameters()
    }
    embeddings, tower = _count(model.get_input_embeddings()), model.get_encoder(modality="image")
    within = sum(_count(part) for _, part in parts if any(part is one for one in tower.modules()))
    vision = _count(tower) - within
    tokens, patches = _image(folder, clip, config, picture)
    eyes, chosen = config.vision_config, getattr(config, "vision_feature_layer", -1)
    levels = len(chosen) if isinstance(chosen, list | tuple) else 1
    return Size(
        decoder=_count(decoder) - embeddings,
        matrices=sum(
            part.weight.numel() for part in decoder.modules() if isinstance(part, nn.Linear)
        ),
        vision=vision,
        others=_count(model) - _count(decoder) - vision + embeddings,
        layers={
            f"{root}.{path}": (one.in_features, one.out_features) for path, one in linear.items()
        },
        projector=learnt,
        depth=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=text.num_attention_heads,
        vocabulary=text.vocab_size,
        stored=(config.dtype or torch.float32).itemsize,
        image_tokens=tokens,
        patches=patches,
        features=patches * eyes.hidden_size * levels * len(parts),
    )


def _image(
    folder: str | Path, clip: str | Path, config: Any, picture: tuple[int, int]
) -> tuple[int, int]:
    """An image's tokens and patches; LLaVA-1.5's are always the same, others' are what their processor
    makes of the image."""
    if config.model_type == "llava":
        patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        return patches, patches
    try:
        look = looks.Look(folder, clip)
    except FcitError:
        return 0, 0
    return look.image(picture)[1:]


def encoder(folder: str | Path) -> tuple[int, int]:
    """How wide an identity encoder's text features are, and its parameters. Raises FcitError where its
    configuration cannot be read, or is of no CLIP."""
    try:
        found, _ = CLIPConfig.get_config_dict(folder, local_files_only=True)
        if (kind := found.get("model_type")) != "clip":
            raise ValueError(f"its model_type is {kind!r}, not 'clip'")
        config: Any = CLIPConfig.from_dict(found)
        with torch.device("meta"):
            model = CLIPModel(config)
        return int(config.text_config.hidden_size), _count(model)
    except (OSError, ValueError, AttributeError) as error:
        line = str(error).strip().splitlines()[0].rstrip(".")
        raise FcitError(f"[model] identity: {folder}: no configuration: {line}") from None


def _count(part: Any) -> int:
    return sum(value.numel() for value in part.parameters())
