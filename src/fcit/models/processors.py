"""A model's processor: loaded as it ships, and what it makes of images."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from transformers import AutoConfig, AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils.import_utils import is_torchvision_available

from fcit.models.features import FeatureCache
from fcit.models.folders import pretrained
from fcit.models.images import image_size, open_image, pad_to_square, read_ahead, read_image
from fcit.types import FcitError, first_line


def load_processor(folder: str | Path, local: bool = False) -> Any:
    """The processor of a folder or hub id, which prepares images with Pillow.

    local: use only files on this disk. Without torchvision the part for videos is left out.
    """
    loader: Any = AutoProcessor
    if not is_torchvision_available():
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


MOST_KEYS = 100_000
"""The most image files whose digest a process remembers."""


class ImageReader:
    """Image files for one model. `square`: the model was trained on images padded to squares."""

    def __init__(self, processor: Any, square: bool):
        self.processor, self.square = processor, square
        self._keys: dict[tuple[Path, int, int], str] = {}
        """By path, size and time of change: a file is read once."""
        self._tokens: dict[tuple[int, int], int] = {}

    def prepare(self, path: Path, data: bytes) -> PreparedImage:
        """Prepare an image file with this content. Raises FcitError naming the file where it cannot be
        decoded or the processor refuses it."""
        image = open_image(data, path)
        return prepare_image(self.processor, pad_to_square(image) if self.square else image, path)

    def prepare_new(
        self, paths: Sequence[Path], cache: FeatureCache
    ) -> Iterator[tuple[Path, str, PreparedImage | None]]:
        """Every image's path and cache key, and the prepared image where the cache lacks its features.
        The next image is prepared while the current one is used."""
        return read_ahead(partial(self._prepare_new, cache), paths)

    def _prepare_new(
        self, cache: FeatureCache, path: Path
    ) -> tuple[Path, str, PreparedImage | None]:
        seen = version(path)
        if (known := self._keys.get(seen)) and known in cache:
            return path, known, None
        data = read_image(path)
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
        sizes = {path: image_size(path) for path in paths}
        for path, size in sizes.items():
            if size not in self._tokens:
                _, self._tokens[size] = prepare_blank(self.processor, size, path)
        return [self._tokens[sizes[path]] for path in paths]


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
