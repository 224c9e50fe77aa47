"""Drawing: every sprite shows, places keep apart, letters differ, one stream gives one picture."""

from __future__ import annotations

import numpy as np
import pytest

from fcit.seeds import numpy_stream
from fcit.suite import draw


@pytest.mark.parametrize("style", draw.STYLES)
@pytest.mark.parametrize("name", draw.PARTS)
def test_every_sprite_shows_in_every_style(name, style):
    item = draw.sprite(name, 24, "red", style)
    assert item.size == (24, 24)
    assert (np.asarray(item)[..., 3] > 128).sum() >= 40


def test_places_never_touch_and_stay_inside():
    rng = numpy_stream(0, "test")
    for _ in range(50):
        sizes = [int(size) for size in rng.integers(8, 15, size=4)]
        spots = draw.place(rng, sizes, within=(2, 2, 46, 46))
        covered = np.zeros((48, 48), dtype=int)
        for (x, y), size in zip(spots, sizes, strict=True):
            assert x >= 2 and y >= 2 and x + size <= 46 and y + size <= 46
            covered[y : y + size, x : x + size] += 1
        assert covered.max() == 1


def test_every_letter_and_digit_looks_different():
    seen = {}
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789":
        image = draw.canvas()
        draw.text(image, (2, 2), letter)
        seen[image.tobytes()] = letter
    assert len(seen) == 36
