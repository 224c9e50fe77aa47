"""A model's processor: loaded as it ships, and what it makes of images. Their features for the model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from sys import intern
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image
from transformers import AutoConfig, AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from fcit.files import write_json
from fcit.models.features import FeatureCache
from fcit.models.folders import pretrained
from fcit.models.images import image_size, open_image, pad_to_square, read_ahead, read_image
from fcit.types import FcitError, Weights, first_line

if TYPE_CHECKING:
    from fcit.models.vision import Vision


def load_processor(folder: str | Path, local: bool = False) -> Any:
    """The processor of a folder or hub id, which prepares images with Pillow.

    local: use only files on this disk. A part for videos, which needs torchvision, is left out.
    """
    loader: Any = AutoProcessor
    config = pretrained(AutoConfig, folder, local_files_only=local)
    known: Any = PROCESSOR_MAPPING.get(type(config), None)
    if known is not None and "video_processor" in known.get_attributes():
        loader = images_only(known)
    processor = pretrained(loader, folder, backend="pil", local_files_only=local)
    if not hasattr(processor, "tokenizer"):
        raise FcitError(f"[model] path: {folder}: its processor is not that of an LMM")
    if processor.tokenizer.pad_token is None:
        raise FcitError(
            f"[model] path: {folder}: its tokenizer has no padding token; set pad_token in "
            "tokenizer_config.json, for example to the value of eos_token"
        )
    return processor


def leaves_out_videos(processor: Any) -> bool:
    """Whether a processor was loaded without its part for videos."""
    return getattr(type(processor), "images_only", False)


def save_video_settings(processor: Any, folder: Path) -> None:
    """Beside a saved processor whose part for videos was left out, write that part's settings as the
    model has them: where torchvision is, transformers then loads the whole processor from `folder`."""
    if not leaves_out_videos(processor):
        return
    from transformers.video_processing_utils import BaseVideoProcessor

    with suppress(OSError):  # the model has none, either
        table, _ = BaseVideoProcessor.get_video_processor_dict(processor.tokenizer.name_or_path)
        write_json(folder / "video_preprocessor_config.json", table)


class PreparedImage(NamedTuple):
    """An image as a model takes it."""

    text: str
    """What stands for it in a prompt."""
    inputs: dict[str, Any]
    """The pixels, and whatever else the model takes, as NumPy arrays."""


def prepare_image(processor: Any, image: Image.Image, name: Path | str = "") -> PreparedImage:
    """Prepare an RGB image. Raises FcitError, which begins with `name`, when the processor refuses it."""
    try:
        inputs = processor(
            text=[processor.image_token],
            images=[image],
            return_tensors="np",
            return_text_replacement_offsets=True,
        )
    except Exception as error:  # such as a strip a hundred times as wide as high
        start, size = f"{name}: " if name else "", f"{image.width} x {image.height}"
        raise FcitError(
            f"{start}the model takes no image of {size} pixels: {first_line(error)}"
        ) from None
    text = inputs.pop("text_replacement_offsets")[0][0]["replacement"]
    return PreparedImage(text, inputs)


def prepare_blank(
    processor: Any, size: tuple[int, int], name: Path | str = ""
) -> tuple[PreparedImage, int]:
    """An empty image of this width and height, prepared, and its number of tokens in a prompt.

    Raises FcitError as `prepare_image` does.
    """
    prepared = prepare_image(processor, Image.new("RGB", size), name)
    return prepared, len(processor.tokenizer(prepared.text, add_special_tokens=False)["input_ids"])


SQUARE = (336, 336)
"""The size of a blank that stands for all images padded to squares: they have the same tokens."""

MOST_KEYS = 100_000
"""The most image files whose digest a process remembers."""


def takes_squares(config: Any) -> bool:
    """Whether a model was trained on images padded to squares, all of one size: LLaVA-1.5, whose tower is
    a CLIP. (Pixtral has the same model type.)"""
    return config.model_type == "llava" and config.vision_config.model_type == "clip_vision_model"


class ImageReader:
    """Image files for one model. `square`: the model was trained on images padded to squares."""

    def __init__(self, processor: Any, square: bool):
        self.processor, self.square = processor, square
        self._keys: dict[tuple[Path, int, int], str] = {}
        """By path, size and time of change: a file is read once."""
        self._seen: dict[tuple[int, int], tuple[str, int]] = {}
        """By width and height: what stands for an image in a prompt, and its number of tokens."""

    def forget(self) -> None:
        """Forget which files were read."""
        self._keys.clear()

    def prepare(self, path: Path, data: bytes) -> PreparedImage:
        """Prepare an image file with this content. Raises FcitError naming the file where it cannot be
        decoded or the processor refuses it."""
        image = open_image(data, path)
        return prepare_image(self.processor, pad_to_square(image) if self.square else image, path)

    def frozen(self, paths: Sequence[Path], vision: Vision, cache: FeatureCache) -> list[Weights]:
        """The features of images, as `ImageFeatures.to_tensors` gives them, each computed once.

        They are looked up, or encoded in batches of a fixed size. The next image is prepared while others
        are encoded. Raises FcitError naming the file where one cannot be decoded or the processor refuses
        it.
        """
        keys: dict[Path, str] = {}
        found: dict[str, Weights] = {}
        waiting: dict[tuple[int, ...], dict[str, PreparedImage]] = {}

        def encode(group: dict[str, PreparedImage]) -> None:
            for key, features in zip(group, vision.encode(list(group.values())), strict=True):
                found[key] = features.to_tensors()
                cache.put(key, found[key])
            group.clear()

        new: list[Path] = []
        for path in dict.fromkeys(paths):
            known = self._keys.get(version(path), "")
            if known and (features := cache.get(known)):
                keys[path], found[known] = known, features
            else:
                new.append(path)
        for path, key, prepared in read_ahead(partial(self._prepare_new, cache), new):
            keys[path] = key
            if key in found or any(key in group for group in waiting.values()):
                continue
            if not prepared and (features := cache.get(key)):
                found[key] = features
                continue
            # Where nothing was prepared, the cache had these features and has dropped them since.
            prepared = prepared or self.prepare(path, read_image(path))
            group = waiting.setdefault(prepared.inputs["pixel_values"].shape, {})
            group[key] = prepared
            if len(group) == vision.batch_size(prepared):
                encode(group)
        for group in filter(None, waiting.values()):
            encode(group)
        return [found[keys[path]] for path in paths]

    def _prepare_new(
        self, cache: FeatureCache, path: Path
    ) -> tuple[Path, str, PreparedImage | None]:
        """An image's path and cache key, and the prepared image where the cache lacks its features."""
        seen, data = version(path), read_image(path)
        if len(self._keys) > MOST_KEYS:
            self._keys.clear()
        key = self._keys[seen] = cache.key(data)
        if key not in cache:
            cache.refresh()
        return path, key, None if key in cache else self.prepare(path, data)

    def token_counts(self, paths: Sequence[Path]) -> list[int]:
        """The number of tokens of each image, from its width and height alone; 0 for all where images
        are padded to squares, because then all have the same number."""
        if self.square:
            return [0] * len(paths)
        return [tokens for _, tokens in self._blanks(paths)]

    def texts(self, paths: Sequence[Path]) -> list[str]:
        """What stands for each image in a prompt, from its width and height alone."""
        return [text for text, _ in self._blanks(paths)]

    def _blanks(self, paths: Sequence[Path]) -> list[tuple[str, int]]:
        sizes = {path: SQUARE if self.square else image_size(path) for path in paths}
        for path, size in sizes.items():
            if size not in self._seen:
                prepared, tokens = prepare_blank(self.processor, size, path)
                self._seen[size] = intern(prepared.text), tokens  # many sizes have one text
        return [self._seen[sizes[path]] for path in paths]


def version(path: Path) -> tuple[Path, int, int]:
    """What changes when a file does; of one that cannot be read, nothing."""
    try:
        facts = path.stat()
    except OSError:
        return path, 0, 0
    return path, facts.st_size, facts.st_mtime_ns


def images_only(kind: Any) -> Any:
    """A processor class that neither loads nor saves a part for videos."""

    class ImagesOnly(kind):
        images_only = True

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
