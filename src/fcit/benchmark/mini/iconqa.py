"""IconQA in miniature: count icons, or say which icon is where."""

from __future__ import annotations

import numpy as np

from fcit.benchmark import draw
from fcit.benchmark.mini.drawn import WORD, Drawn, ask, between, plural, some

NAME = "IconQA"

_COUNTED = ("star", "heart", "flower", "apple", "ball", "fish", "circle", "square", "triangle")
_SHOWN = (*_COUNTED, "moon", "diamond", "hat", "house", "key", "cup")
_HOW_MANY = (
    "Look at the icons. How many {icons} are there?",
    "Look at the icons. How many {icons} do you count?",
    "Look at the icons. Count the {icons}. How many are there?",
)
_SIDES = (("left", (1, 12)), ("right", (25, 12)), ("top", (12, 1)), ("bottom", (12, 25)))
_WHICH = (
    "Look at the icons. Which icon is at the {side}?",
    "Look at the icons. Which one is at the {side}?",
    "Look at the icons. What is the icon at the {side} called?",
)


def sample(rng: np.random.Generator) -> Drawn:
    """Two in three: one to six equal icons, at most two others; else two icons to tell apart."""
    return _count(rng) if rng.random() < 0.67 else _which(rng)


def _count(rng: np.random.Generator) -> Drawn:
    counted, other = some(rng, _COUNTED, 2)
    number = between(rng, 1, 6)
    strange = min(between(rng, 0, 2), 7 - number)
    hue, hers = some(rng, draw.HUES, 2)
    image = draw.ground(rng)
    size = between(rng, 11, 13)
    spots = draw.place(rng, [size] * (number + strange))
    for index, spot in enumerate(spots):
        name, colour = (counted, hue) if index < number else (other, hers)
        draw.put(image, draw.sprite(name, size, colour), spot)
    return Drawn(image, ask(rng, _HOW_MANY, WORD, icons=plural(counted)), (str(number),))


def _which(rng: np.random.Generator) -> Drawn:
    names, hues = some(rng, _SHOWN, 2), some(rng, draw.HUES, 2)
    pair = _SIDES[:2] if rng.random() < 0.5 else _SIDES[2:]
    image = draw.ground(rng)
    for name, hue, (_, spot) in zip(names, hues, pair, strict=True):
        size = between(rng, 17, 21)
        draw.put(image, draw.sprite(name, size, hue), draw.jitter(rng, spot))
    asked = int(rng.integers(2))
    return Drawn(image, ask(rng, _WHICH, WORD, side=pair[asked][0]), (names[asked],))
