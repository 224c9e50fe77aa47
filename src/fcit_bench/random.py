"""A checkpoint folder of a LLaVA-shaped model with random weights, for measuring speed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
)

from fcit.models import CHECKPOINTS
from fcit.seeds import lent
from fcit.types import FcitError

PATCH, HEAD = 14, 64
"""Side of an image patch in pixels; width of an attention head (doubled in wide language models)."""


@dataclass(frozen=True)
class Shape:
    """The sizes of the language model and of the image encoder, which cuts an image of `side` pixels into
    patches of 14."""

    hidden: int = 2048
    intermediate: int = 5504
    layers: int = 2
    vocabulary: int = 32000
    side: int = 84
    vision_width: int = 128
    vision_layers: int = 2

    def __post_init__(self) -> None:
        for name in ("hidden", "vision_width"):
            value = getattr(self, name)
            if value < HEAD or value % HEAD:
                raise FcitError(f"{name}: {value} is not a multiple of {HEAD}, the width of a head")
        if self.intermediate < 1 or self.hidden in (self.intermediate, 2 * self.intermediate):
            raise FcitError(
                f"intermediate: {self.intermediate} must be at least 1 and neither hidden "
                f"({self.hidden}) nor half of it, because projections are found by their shapes"
            )
        if self.layers < 1:
            raise FcitError(f"layers: {self.layers} must be at least 1")

    @property
    def heads(self) -> int:
        """Heads of the language model's attention."""
        return self.hidden // (2 * HEAD if self.hidden % (2 * HEAD) == 0 else HEAD)


def write(folder: Path, shape: Shape, dtype: torch.dtype, device: str = "cpu") -> int:
    """Write a checkpoint folder of this shape, with the mini model's tokenizer; returns its number of
    parameters.

    The token that ends an answer never has the highest logit, so every answer has the maximum length.
    """
    processor: Any = AutoProcessor.from_pretrained(CHECKPOINTS / "mini-lmm", backend="pil")
    processor.patch_size = PATCH
    processor.image_processor.size = {"shortest_edge": shape.side}
    processor.image_processor.crop_size = {"height": shape.side, "width": shape.side}
    config: Any = LlavaConfig.from_pretrained(CHECKPOINTS / "mini-lmm")
    config.vision_config = CLIPVisionConfig(
        hidden_size=shape.vision_width,
        intermediate_size=4 * shape.vision_width,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_width // HEAD,
        image_size=shape.side,
        patch_size=PATCH,
        projection_dim=shape.vision_width,
    )
    config.text_config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=4096,
    )
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    end = processor.tokenizer.eos_token_id
    with lent(0, "random-model"), torch.device(device):
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    with torch.no_grad():
        model.get_output_embeddings().weight[end] = 0
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return int(model.num_parameters())
