"""Grounding in miniature: the box of an object that a phrase describes.

Kept: a phrase in, four relative coordinates out, scored by overlap; some conversations of two turns.
Lost: photographs, objects that hide others, phrases that need relations or position, and most of the
choice: one object is large, the others small, and six in seven phrases mean the large one.
"""

import numpy as np

from fcit.benchmark.datasets import Split
from fcit.suite import draw
from fcit.suite.drawn import Drawn, ask, between, pick, some, wordings

NAME = "Grounding"

OBJECTS = (
    "house", "tree", "fish", "cup", "car", "bus", "cat", "dog", "flower", "ball", "hat", "bird",
    "apple", "clock", "lamp", "chair",
)  # fmt: skip
SMALL = ("circle", "square", "triangle", "star", "diamond")
(REGION,) = wordings(NAME, "region")


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """A large object among one or two small shapes; mostly the large one is asked for.

    Boxes are [x1,y1,x2,y2], shares of the image side with two decimals.
    """
    sizes = [between(rng, 20, 30), *(between(rng, 9, 11) for _ in range(between(rng, 1, 2)))]
    names = [pick(rng, OBJECTS), *some(rng, SMALL, len(sizes) - 1)]
    hues = some(rng, draw.HUES, len(sizes))
    image = draw.ground(rng)
    turns: list[tuple[str, str]] = []
    for name, hue, size, spot in zip(names, hues, sizes, draw.place(rng, sizes), strict=True):
        where = draw.put(image, draw.sprite(name, size, hue), spot)
        phrase = pick(rng, (f"the {hue} {name}", f"the {hue} {name}", f"the {name}"))
        turns.append((ask(rng, split, REGION, "", phrase=phrase), written(where)))
    if rng.random() < 0.15:
        turns = turns[::-1]
    (prompt, answer), *others = turns
    more = tuple(others[:1]) if rng.random() < 0.4 else ()
    return Drawn(image, prompt, (answer,), more)


def written(where: draw.Box) -> str:
    """A pixel box as "[x1,y1,x2,y2]", shares of the image side with two decimals."""
    return "[" + ",".join(f"{value / draw.SIZE:.2f}" for value in where) + "]"
