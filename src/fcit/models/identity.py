"""The frozen encoder behind identity tokens: CLIP features of instructions, of images, or of both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel
from transformers.utils import logging

from fcit.models.images import open_image
from fcit.types import FcitError

logging.disable_progress_bar()

Kind = Literal["text", "image", "both"]


class Encoder:
    """A frozen CLIP in one process (Guo et al. 2025, section 4.2: CLIP ViT-L/14-336, 768-d, 77 tokens).

    Features of one prompt or image are computed once a process and kept (a row is small).
    """

    def __init__(self, folder: str | Path, device: str = "cpu"):
        try:
            model: Any = CLIPModel.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True
            )
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.images = AutoImageProcessor.from_pretrained(folder, backend="pil")
        except (OSError, ValueError, KeyError) as error:
            line = str(error).strip().splitlines()[0]
            raise FcitError(f"[model] identity: {folder} does not load as a CLIP: {line}") from None
        self.device = torch.device(device)
        self.model: Any = model.to(self.device).requires_grad_(False).eval()
        self.length = int(self.model.config.text_config.max_position_embeddings)
        self.seen: dict[str | Path, Tensor] = {}

    def embed(self, kind: Kind, prompts: Sequence[str], images: Sequence[Path]) -> Tensor:
        """One row a sample: text features [n, d], image features [n, d], or both [n, 2d]."""
        if kind == "text":
            return self.text(prompts)
        if kind == "image":
            return self.image(images)
        return torch.cat([self.text(prompts), self.image(images)], dim=1)

    def text(self, prompts: Sequence[str]) -> Tensor:
        """Pooled text features [n, d] of instructions, cut at the encoder's length."""
        new = [text for text in dict.fromkeys(prompts) if text not in self.seen]
        for text in new:
            self.seen[text] = self._text(text)
        return torch.stack([self.seen[text] for text in prompts])

    def image(self, images: Sequence[Path]) -> Tensor:
        """Projected image embeddings [n, d] of image files."""
        for path in dict.fromkeys(images):
            if path not in self.seen:
                self.seen[path] = self._image(path)
        return torch.stack([self.seen[path] for path in images])

    @torch.no_grad()
    def _text(self, text: str) -> Tensor:
        inputs = self.tokenizer(
            [text], truncation=True, max_length=self.length, return_tensors="pt"
        ).to(self.device)
        out = self.model.text_model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        )
        return out.pooler_output[0].float().cpu()

    @torch.no_grad()
    def _image(self, path: Path) -> Tensor:
        pixels = self.images(open_image(path, path), return_tensors="pt")["pixel_values"]
        out = self.model.vision_model(pixel_values=pixels.to(self.device))
        return self.model.visual_projection(out.pooler_output)[0].float().cpu()
