"""Frozen features of image files: looked up, or encoded in batches of a fixed size."""

from collections.abc import Sequence
from pathlib import Path

from fcit.models.features import FeatureCache
from fcit.models.images import read_image
from fcit.models.processors import ImageReader, PreparedImage
from fcit.models.vision import Vision
from fcit.types import Weights


def frozen(
    paths: Sequence[Path], reader: ImageReader, vision: Vision, cache: FeatureCache
) -> list[Weights]:
    """The features of images, as `ImageFeatures.to_tensors` gives them, each computed once.

    The next image is prepared while others are encoded. Raises FcitError naming the file where one cannot
    be decoded or the processor refuses it.
    """
    keys: dict[Path, str] = {}
    found: dict[str, Weights] = {}
    waiting: dict[tuple[int, ...], dict[str, PreparedImage]] = {}

    def encode(group: dict[str, PreparedImage]) -> None:
        for key, features in zip(group, vision.encode(list(group.values())), strict=True):
            found[key] = features.to_tensors()
            cache.put(key, found[key])
        group.clear()

    for path, key, prepared in reader.prepare_new(list(dict.fromkeys(paths)), cache):
        keys[path] = key
        if key in found or any(key in group for group in waiting.values()):
            continue
        if not prepared and (features := cache.get(key)):
            found[key] = features
            continue
        # Where nothing was prepared, the cache had these features and has dropped them since.
        prepared = prepared or reader.prepare(path, read_image(path))
        group = waiting.setdefault(prepared.inputs["pixel_values"].shape, {})
        group[key] = prepared
        if len(group) == vision.batch_size(prepared):
            encode(group)
    for group in filter(None, waiting.values()):
        encode(group)
    return [found[keys[path]] for path in paths]
