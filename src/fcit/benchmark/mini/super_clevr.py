"""super-CLEVR in miniature: coloured vehicles, asked for attributes and counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from fcit.benchmark import draw
from fcit.benchmark.mini.drawn import WORD, Drawn, ask, between, pick, plural, some

NAME = "super-CLEVR"

VEHICLES = ("car", "bus", "truck", "bike", "plane")
_COLOUR = (
    "What is the color of the {kind} in the scene?",
    "The {kind} in the scene has what color?",
    "There is a {kind} in the scene; what is its color?",
)
_KIND = (
    "What vehicle in the scene is {colour}?",
    "There is a {colour} vehicle in the scene; what is it?",
    "The {colour} vehicle in the scene is of what type?",
)
_COUNT = (
    "What number of {kinds} are in the scene?",
    "How many vehicles in the scene are {kinds}?",
    "What is the number of {kinds} in the scene?",
)


def sample(rng: np.random.Generator) -> Drawn:
    """Two or three different vehicles to describe, or one to four of one kind to count."""
    image = draw.canvas(draw.mix("green", "white", 0.6 + 0.05 * between(rng, 0, 5)))
    if rng.random() < 0.3:
        kind, other = some(rng, VEHICLES, 2)
        number = between(rng, 1, 4)
        kinds = [kind] * number + [other] * between(rng, 0, number < 4)
        _park(rng, image, kinds, [pick(rng, draw.HUES) for _ in kinds], 15, 18)
        return Drawn(image, ask(rng, _COUNT, WORD, kinds=plural(kind)), (str(number),))
    number = between(rng, 2, 3)
    kinds, hues = some(rng, VEHICLES, number), some(rng, draw.HUES, number)
    _park(rng, image, kinds, hues, 18, 21)
    if rng.random() < 0.5:
        return Drawn(image, ask(rng, _COLOUR, WORD, kind=kinds[0]), (hues[0],))
    return Drawn(image, ask(rng, _KIND, WORD, colour=hues[0]), (kinds[0],))


def _park(
    rng: np.random.Generator,
    image: Image.Image,
    kinds: Sequence[str],
    hues: Sequence[str],
    low: int,
    high: int,
) -> None:
    sizes = [between(rng, low, high) for _ in kinds]
    for kind, hue, size, spot in zip(kinds, hues, sizes, draw.place(rng, sizes), strict=True):
        draw.put(image, draw.sprite(kind, size, hue, flip=bool(rng.integers(2))), spot)
