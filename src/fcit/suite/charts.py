"""The bar charts of FigureQA and DVQA, which draw from one and the same distribution."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from fcit.suite import draw
from fcit.suite.draw import CELL
from fcit.suite.drawn import between, pick, some

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COLUMNS = range(1, 6)
"""The grid columns a bar may stand in; the axis stands left of the first."""
UNIT, MOST = 5, 7
"""Pixels of height for one unit of value, and the largest value."""
APART = 2
"""Units by which the highest and the lowest bar differ from every other."""
_BOTTOM = 5 * CELL


@dataclass(frozen=True)
class Bar:
    """A bar: its colour's name, the capital below it, its value from 1 to MOST."""

    colour: str
    letter: str
    value: int


def chart(rng: np.random.Generator) -> tuple[Image.Image, list[Bar]]:
    """A chart of two to five upright bars, in random order; the first bar's value is uniform."""
    number, value = between(rng, 2, 5), between(rng, 1, MOST)
    low, high = pick(rng, _ranges(number, value))
    values = [value, *(edge for edge in (low, high) if edge != value)][:number]
    values += [between(rng, low + APART, high - APART) for _ in range(number - len(values))]
    looks = zip(some(rng, draw.HUES, number), some(rng, LETTERS, number), values, strict=True)
    bars = [Bar(*look) for look in looks]
    ground = pick(rng, ("white", draw.mix("yellow", "white", 0.8), draw.mix("blue", "white", 0.9)))
    image = draw.canvas(ground)
    for level in range(1, MOST + 1):
        y = _BOTTOM - UNIT * level
        draw.line(image, [(CELL, y), (draw.SIZE - 1, y)], draw.mix("black", "white", 0.83))
    draw.axes(image, (CELL, 2, draw.SIZE - 1, _BOTTOM - 1), "gray")
    wide, shift = between(rng, 6, 7), between(rng, 0, 1)
    for column, bar in zip(some(rng, COLUMNS, number), bars, strict=True):
        x = CELL * column + shift * (CELL - 1 - wide)
        draw.box(image, (x, _BOTTOM - UNIT * bar.value, x + wide, _BOTTOM), bar.colour)
        draw.text(image, (CELL * column, _BOTTOM), bar.letter)
    return image, bars


def _ranges(number: int, value: int) -> list[tuple[int, int]]:
    """Lowest and highest values that a chart of `number` bars, one of them `value`, may have."""
    between_them = APART if number == 2 else 2 * APART
    return [
        (low, high)
        for low in range(1, MOST + 1)
        for high in range(low + between_them, MOST + 1)
        if value in (low, high) or (number > 2 and low + APART <= value <= high - APART)
    ]
