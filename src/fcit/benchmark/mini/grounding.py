"""Grounding in miniature: the box of an object that a phrase describes."""

from __future__ import annotations

import numpy as np

from fcit.benchmark import draw
from fcit.benchmark.mini.drawn import Drawn, between, pick, some

NAME = "Grounding"

_OBJECTS = (
    "house", "tree", "fish", "cup", "car", "bus", "cat", "dog", "flower", "ball", "hat", "bird",
    "apple", "clock", "lamp", "chair",
)  # fmt: skip
_QUESTIONS = (
    "Give the bounding box coordinates of the region this phrase describes: {phrase}.",
    "Which region does this phrase describe: {phrase}? Give its bounding box coordinates.",
    "Provide the bounding box coordinates of the described region: {phrase}.",
)


def sample(rng: np.random.Generator) -> Drawn:
    """Two or three objects; boxes [x1,y1,x2,y2] as shares of the image side, two decimals."""
    number = 2 if rng.random() < 0.7 else 3
    names, hues = some(rng, _OBJECTS, number), some(rng, draw.HUES, number)
    sizes = [between(rng, 18, 22) if number == 2 else between(rng, 15, 18) for _ in names]
    image = draw.ground(rng)
    turns: list[tuple[str, str]] = []
    for name, hue, size, spot in zip(names, hues, sizes, draw.place(rng, sizes), strict=True):
        where = draw.put(image, draw.sprite(name, size, hue), spot)
        phrase = pick(rng, (f"the {hue} {name}", f"the {hue} {name}", f"the {name}"))
        turns.append((pick(rng, _QUESTIONS).format(phrase=phrase), written(where)))
    (prompt, answer), *others = turns
    more = tuple(others[:1]) if rng.random() < 0.4 else ()
    return Drawn(image, prompt, (answer,), more)


def written(where: draw.Box) -> str:
    """A pixel box as "[x1,y1,x2,y2]", shares of the image side with two decimals."""
    return "[" + ",".join(f"{value / draw.SIZE:.2f}" for value in where) + "]"
