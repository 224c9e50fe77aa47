"""The frozen encoder behind identity tokens: CLIP features of instructions, of images, or of both."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from fcit.models.folders import load_weights, pretrained
from fcit.models.images import open_image, pad_to_square

Kind = Literal["text", "image", "both"]


class Encoder:
    """A frozen CLIP in one process (Guo et al. 2025, section 4.2: CLIP ViT-L/14-336, 768-d, 77 tokens).

    The features of a prompt or image are computed once per process and kept in `cache`.
    """

    def __init__(self, folder: str | Path, device: str = "cpu"):
        model = load_weights(CLIPModel, folder, "identity", dtype=torch.float32)
        self.tokenizer = pretrained(AutoTokenizer, folder, "identity")
        self.image_processor = pretrained(AutoImageProcessor, folder, "identity", backend="pil")
        self.device = torch.device(device)
        self.model: Any = model.to(self.device).requires_grad_(False).eval()
        self.length = int(self.model.config.text_config.max_position_embeddings)
        self.cache: dict[str | Path, Tensor] = {}

    def embed(self, kind: Kind, prompts: Sequence[str], images: Sequence[Path]) -> Tensor:
        """One row per sample: text features [n, d], image features [n, d], or both [n, 2d]."""
        if kind == "text":
            return self.text(prompts)
        if kind == "image":
            return self.image(images)
        return torch.cat([self.text(prompts), self.image(images)], dim=1)

    def text(self, prompts: Sequence[str]) -> Tensor:
        """Pooled text features [n, d] of instructions, cut at the encoder's length."""
        return self._rows(self._text, prompts)

    def image(self, images: Sequence[Path]) -> Tensor:
        """Projected image embeddings [n, d] of image files."""
        return self._rows(self._image, images)

    def _rows(self, compute: Callable[[Any], Tensor], keys: Sequence[str | Path]) -> Tensor:
        for key in keys:
            if key not in self.cache:
                self.cache[key] = compute(key)
        return torch.stack([self.cache[key] for key in keys])

    @torch.no_grad()
    def _text(self, text: str) -> Tensor:
        inputs = self.tokenizer(
            [text],
            split_special_tokens=True,  # a written "<|endoftext|>" is text
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        ).to(self.device)
        out = self.model.text_model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        )
        return out.pooler_output[0].float().cpu()

    @torch.no_grad()
    def _image(self, path: Path) -> Tensor:
        image = pad_to_square(open_image(path))
        pixels = self.image_processor(image, return_tensors="pt")["pixel_values"]
        out = self.model.vision_model(pixel_values=pixels.to(self.device))
        return self.model.visual_projection(out.pooler_output)[0].float().cpu()
