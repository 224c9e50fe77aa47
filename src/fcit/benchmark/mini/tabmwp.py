"""TabMWP in miniature: a price table, and a small sum over its rows."""

from __future__ import annotations

import numpy as np

from fcit.benchmark import draw
from fcit.benchmark.mini.drawn import WORD, Drawn, ask, between, pick, some

NAME = "TabMWP"

ITEMS = ("cup", "hat", "pie", "toy", "car", "bus", "jet", "fig", "bag", "egg", "pea", "ice")
_PRICE = (
    "Look at the price table. How many dollars does the {one} cost?",
    "Read the table. What is the price of the {one} in dollars?",
)
_SUM = (
    "Look at the price table. How many dollars do the {one} and the {two} cost together?",
    "Read the table. A child buys the {one} and the {two}. How many dollars are spent?",
)
_DIFFERENCE = (
    "Look at the price table. How many dollars more does the {one} cost than the {two}?",
    "Read the table. By how many dollars is the {one} dearer than the {two}?",
)


def sample(rng: np.random.Generator) -> Drawn:
    """Two or three rows of a word and a price from 1 to 6, in characters ten pixels high."""
    number = between(rng, 2, 3)
    topic = pick(rng, ("price", "sum", "difference"))
    names = some(rng, ITEMS, number)
    prices = [between(rng, 1, 6) for _ in names]
    if topic == "difference" and prices[0] <= prices[1]:
        prices[1] = between(rng, 1, 5)
        prices[0] = between(rng, prices[1] + 1, 6)
    head = draw.mix(pick(rng, draw.HUES), "black", 0.3)
    image = draw.canvas()
    draw.box(image, (0, 0, 48, 8), head)
    draw.text(image, (3, 2), "ITEM", "white")
    draw.text(image, (40, 2), "$", "white")
    band = draw.mix(head, "white", 0.85)
    order = [int(index) for index in rng.permutation(number)]
    step = 13 if number == 3 else 18
    for row, index in enumerate(order):
        top = 8 + row * step
        if row % 2:
            draw.box(image, (0, top, 48, top + step), band)
        y = top + (step - 10) // 2 + between(rng, 0, 1)
        draw.text(image, (2, y), names[index], "black", 2)
        draw.text(image, (39, y), str(prices[index]), "black", 2)
    questions, answer = {
        "price": (_PRICE, prices[0]),
        "sum": (_SUM, prices[0] + prices[1]),
        "difference": (_DIFFERENCE, prices[0] - prices[1]),
    }[topic]
    return Drawn(image, ask(rng, questions, WORD, one=names[0], two=names[1]), (str(answer),))
