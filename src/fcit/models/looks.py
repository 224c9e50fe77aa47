"""What a model's processor makes of images and samples, without the model: tokens and patches counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from fcit.models import llava_original, processors
from fcit.models.chat import Chat
from fcit.types import FcitError, Sample

PICTURE = (640, 480)
"""Width and height of an image where none is at hand: a usual photograph's."""


def config(folder: str | Path, clip: str | Path = "") -> Any:
    """A model's configuration, from files on this disk. Raises what transformers raises without one."""
    if llava_original.recognise(folder):
        return llava_original.configure(Path(folder), clip)[0]
    return AutoConfig.from_pretrained(folder, local_files_only=True)


class Look:
    """A model's processor, from files on this disk; `clip` as in `loading.load`, `template` as in
    `chat.Chat`. Raises FcitError where there is none."""

    def __init__(self, folder: str | Path, clip: str | Path = "", template: str = ""):
        self.template = template
        self.config: Any
        try:
            if llava_original.recognise(folder):
                self.config, self.processor = llava_original.configure(Path(folder), clip)
            else:
                self.config = config(folder)
                self.processor = processors.load(folder, local=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise FcitError(f"[model] path: {folder}: no processor: {line}") from None

    def image(self, picture: tuple[int, int]) -> tuple[str, int, int]:
        """Of an image so wide and high: what stands for it in a prompt, that text's tokens, and the
        patches that the vision tower sees. Raises FcitError where the processor refuses such images."""
        (text, made), tokens = processors.blank(self.processor, picture)
        return text, tokens, self._patches(made["pixel_values"].shape)

    def _patches(self, shape: tuple[int, ...]) -> int:
        """Pixels come as a row for each patch, or as tiles [..., channels, height, width]."""
        if len(shape) == 2:
            return shape[0]
        side: Any = self.config.vision_config.patch_size
        height, width = (side, side) if isinstance(side, int) else side
        tiles = 1
        for count in shape[:-3]:
            tiles *= count
        return tiles * (shape[-2] // height) * (shape[-1] // width)

    def lengths(
        self, samples: Sequence[Sample], image: str, max_length: int
    ) -> list[tuple[int, int]]:
        """Training samples' tokens in all, and those that answer; `image` stands for each one's image."""
        kind, token = self.config.model_type, int(self.config.image_token_id)
        chat = Chat(self.processor, max_length, token, self.template, kind)
        rows = [chat.turns(sample, image) for sample in samples]
        return [(len(ids), sum(label != -100 for label in labels)) for ids, labels in rows]
