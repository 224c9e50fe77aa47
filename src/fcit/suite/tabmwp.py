"""TabMWP in miniature: a price table, and a small sum over its rows.

Kept: lookups, and a sum of two, in a table that must be read, as its words are made up. Lost:
headings, tables of other kinds than prices, decimals, differences and several steps of reasoning,
answers to choose from.
"""

import numpy as np
from PIL import Image

from fcit.benchmark.datasets import Split
from fcit.suite import draw
from fcit.suite.draw import CELL
from fcit.suite.drawn import CONSONANTS, NUMBER, Drawn, ask, between, name, pick, some, wordings

NAME = "TabMWP"


MOST = 12
"""The largest sum."""
PRICE, SUM = wordings(NAME, "price", "sum")


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """Three or four rows of a made-up word and a price from 1 to 9, on grid lines."""
    number = between(rng, 3, 4)
    topic = pick(rng, (PRICE, PRICE, SUM))
    prices = [between(rng, 1, 9) for _ in range(number)]
    answer = prices[0]
    if topic is SUM:
        answer = between(rng, 2, MOST)
        prices[0] = between(rng, max(1, answer - 9), min(9, answer - 1))
        prices[1] = answer - prices[0]
    names = [name(rng, 3, first) for first in some(rng, CONSONANTS, number)]
    image = _table(rng, names, prices)
    return Drawn(image, ask(rng, split, topic, NUMBER, one=names[0], two=names[1]), (str(answer),))


def _table(rng: np.random.Generator, names: list[str], prices: list[int]) -> Image.Image:
    """The rows in random order below an empty header band, or without one."""
    number = len(names)
    headed = bool(rng.integers(2))
    step = 2 if number == 3 and rng.random() < 0.5 else 1
    free = 6 - headed - step * (number - 1) - 1
    first = headed + between(rng, 0, free)
    words = between(rng, 0, 1)
    price = between(rng, 4 + words, 5)
    hue = pick(rng, draw.HUES)
    image = draw.canvas()
    if headed:
        head = CELL * (first - 1)
        draw.box(image, (0, head, draw.SIZE, head + CELL), draw.mix(hue, "black", 0.3))
    band, banded = draw.mix(hue, "white", 0.8), bool(rng.integers(2))
    for row, index in enumerate(rng.permutation(number)):
        y = CELL * (first + step * row)
        if banded and row % 2 == 0:
            draw.box(image, (0, y, draw.SIZE, y + CELL), band)
        draw.text(image, (CELL * words, y), names[int(index)])
        draw.text(image, (CELL * price, y), str(prices[int(index)]))
    return image
