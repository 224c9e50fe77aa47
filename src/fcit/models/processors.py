"""A model's processor as it ships, without its part for videos where torchvision is absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoConfig, AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils.import_utils import is_torchvision_available

from fcit.types import FcitError


def load(folder: str | Path, local: bool = False) -> Any:
    """The processor of a folder or hub id; images are prepared with Pillow. local: from files that are
    on this disk, or not at all."""
    if not is_torchvision_available():
        config = AutoConfig.from_pretrained(folder, local_files_only=local)
        kind: Any = PROCESSOR_MAPPING.get(type(config), None)
        if kind is not None and "video_processor" in kind.get_attributes():
            kind = images_only(kind)
            return kind.from_pretrained(folder, backend="pil", local_files_only=local)
    return AutoProcessor.from_pretrained(folder, backend="pil", local_files_only=local)


Prepared = tuple[str, dict[str, Any]]
"""What stands for an image in a prompt, and all else that a model takes of it, as NumPy arrays."""


def prepared(processor: Any, image: Image.Image, path: Path | None = None) -> Prepared:
    """An RGB image as a model takes it. Raises FcitError, naming its file where `path` tells it, where
    its processor refuses the image."""
    try:
        made = processor(
            text=[processor.image_token],
            images=[image],
            return_tensors="np",
            return_text_replacement_offsets=True,
        )
    except ValueError as error:  # such as a strip a hundred times as wide as high
        place, size = f"{path}: " if path else "", f"{image.width} x {image.height}"
        raise FcitError(f"{place}the model takes no image of {size} pixels: {error}") from None
    return made.pop("text_replacement_offsets")[0][0]["replacement"], made


def blank(processor: Any, size: tuple[int, int], path: Path | None = None) -> tuple[Prepared, int]:
    """An empty image so wide and high as a model takes it, in place of the file `path`, and how many
    tokens stand for it in a prompt. Raises FcitError as `prepared` does."""
    made = prepared(processor, Image.new("RGB", size), path)
    return made, len(processor.tokenizer(made[0], add_special_tokens=False)["input_ids"])


def images_only(kind: Any) -> Any:
    """A processor class that neither loads nor saves a part for videos."""

    class ImagesOnly(kind):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != "video_processor"]

        @classmethod
        def from_args_and_dict(
            cls, args: Any, processor_dict: dict[str, Any], **kwargs: Any
        ) -> Any:
            return super().from_args_and_dict(args, processor_dict, video_processor=None, **kwargs)

    ImagesOnly.__name__ = ImagesOnly.__qualname__ = kind.__name__
    return ImagesOnly
