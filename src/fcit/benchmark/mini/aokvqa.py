"""A-OKVQA in miniature: an object, and a question whose answer is knowledge about it."""

from __future__ import annotations

import numpy as np

from fcit.benchmark import draw
from fcit.benchmark.mini.drawn import WORD, Drawn, ask, between, pick

NAME = "A-OKVQA"

PLACES = {
    "fish": "water", "boat": "sea", "bird": "nest", "plane": "sky", "car": "road", "bus": "road",
    "tree": "forest", "mushroom": "forest", "flower": "garden", "lamp": "room", "chair": "room",
    "cup": "kitchen", "key": "door", "hat": "head", "dog": "yard", "cat": "sofa",
}  # fmt: skip
USES = {
    "cup": "drink", "apple": "eat", "chair": "sit", "key": "open", "hat": "wear", "ball": "play",
    "car": "drive", "bike": "ride", "boat": "sail", "plane": "fly", "house": "live",
    "umbrella": "rain", "clock": "time", "lamp": "light",
}  # fmt: skip
SUBSTANCES = {
    "house": "brick", "key": "metal", "chair": "wood", "tree": "wood", "boat": "wood",
    "hat": "cloth", "umbrella": "cloth", "car": "metal", "bike": "metal", "bus": "metal",
    "cup": "clay", "lamp": "glass", "clock": "glass", "ball": "rubber",
}  # fmt: skip
_WHERE = (
    "Where would you usually find the thing in the picture?",
    "Where does the thing shown here usually belong?",
)
_WHY = (
    "What do people mostly use the thing in the picture for?",
    "What is the purpose of the thing shown here?",
)
_WHAT = (
    "What is the thing in the picture likely made of?",
    "Which material is the thing shown here likely made from?",
)


def sample(rng: np.random.Generator) -> Drawn:
    """One large object beside small plain shapes; the answer is one word."""
    questions, facts = pick(rng, ((_WHERE, PLACES), (_WHY, USES), (_WHAT, SUBSTANCES)))
    name = pick(rng, tuple(facts))
    image = draw.ground(rng)
    sizes = [between(rng, 25, 32), *([between(rng, 7, 9)] * between(rng, 0, 2))]
    spots = draw.place(rng, sizes)
    draw.put(image, draw.sprite(name, sizes[0], pick(rng, draw.HUES)), spots[0])
    for size, spot in zip(sizes[1:], spots[1:], strict=True):
        shape = pick(rng, ("circle", "square", "triangle"))
        draw.put(image, draw.sprite(shape, size, pick(rng, draw.HUES)), spot)
    return Drawn(image, ask(rng, questions, WORD), (facts[name],))
