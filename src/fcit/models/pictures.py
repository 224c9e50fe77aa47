"""Image files on their way into a model: opened, prepared, and counted in tokens."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fcit.models import processors
from fcit.models.features import FeatureCache
from fcit.models.images import ahead, measure, open_image, read


class Pictures:
    """A processor's images; `square`: they are padded to squares first, as the model was trained."""

    def __init__(self, processor: Any, square: bool):
        self.processor, self.square = processor, square
        self._tokens: dict[tuple[int, int], int] = {}

    def prepared(self, path: Path, data: bytes) -> processors.Prepared:
        """What a model takes of an image file with this content. Raises FcitError naming the file where
        it cannot be decoded, or the processor refuses it."""
        image = open_image(io.BytesIO(data), path, self.square)
        return processors.prepared(self.processor, image, path)

    def opened(
        self, paths: Sequence[Path], cache: FeatureCache
    ) -> Iterator[tuple[Path, str, processors.Prepared | None]]:
        """Every image's key, and it as a model takes it where the cache has no features of it; the next
        one is opened and prepared while one is used."""
        return ahead(partial(self._open, cache), paths)

    def _open(
        self, cache: FeatureCache, path: Path
    ) -> tuple[Path, str, processors.Prepared | None]:
        data = read(path)
        key = cache.key(data)
        return path, key, None if cache.holds(key) else self.prepared(path, data)

    def tokens(self, paths: Sequence[Path]) -> list[int]:
        """How many tokens stand for each image in a prompt, from its width and height alone; of images
        that are padded to a square all have as many, which is told as 0."""
        if self.square:
            return [0] * len(paths)
        sizes = {path: measure(path) for path in paths}
        for path, size in sizes.items():
            if size not in self._tokens:
                _, self._tokens[size] = processors.blank(self.processor, size, path)
        return [self._tokens[sizes[path]] for path in paths]
