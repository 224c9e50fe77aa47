"""ImageNet-R in miniature: name one object drawn in varying renditions.

Kept: naming an object whatever its rendition (filled, outlined, hatched, dotted, coarse, noisy, a
negative). Lost: two hundred classes become eighteen, and each has one shape, so that the difficulty
of recognising a thing in a new shape is gone.
"""

import numpy as np

from fcit.benchmark.datasets import Split
from fcit.suite import draw
from fcit.suite.drawn import WORD, Drawn, ask, between, pick, wordings

NAME = "ImageNet-R"

OBJECTS = (
    "house", "tree", "fish", "cup", "plane", "boat", "cat", "dog", "flower", "hat", "key", "bird",
    "umbrella", "apple", "clock", "lamp", "mushroom", "chair",
)  # fmt: skip
(OBJECT,) = wordings(NAME, "object")


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """One object, 24 to 42 pixels, in one of five styles, sometimes noisy or as a negative."""
    name, style, hue = pick(rng, OBJECTS), pick(rng, draw.STYLES), pick(rng, draw.HUES)
    if style != "filled" and hue in ("yellow", "cyan", "pink"):
        hue = "black"  # thin light lines vanish on a light ground
    size = between(rng, 24 if style == "filled" else 32, 42)
    image = draw.ground(rng)
    item = draw.sprite(name, size, hue, style, flip=bool(rng.integers(2)))
    draw.put(image, item, draw.place(rng, [size])[0])
    if rng.random() < 0.25:
        image = draw.inverted(image)
    if rng.random() < 0.3:
        image = draw.noise(rng, image, 30.0)
    return Drawn(image, ask(rng, split, OBJECT, WORD), (name,))
