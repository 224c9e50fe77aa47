"""Flickr30k in miniature: a scene of someone doing something somewhere, captioned five ways."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fcit.benchmark import draw
from fcit.benchmark.mini.drawn import CAPTION, Drawn, ask, between, pick

NAME = "Flickr30k"

_AGENTS = ("person", "dog", "cat", "bird")
# Few words recur from one deed or place to another: a constant caption should score low.
_DOING = {
    "ball": "plays ball",
    "flower": "smells flowers",
    "bike": "rides a bike",
    "fish": "watches some fish",
    "umbrella": "carries an umbrella",
    "apple": "eats apples",
    "car": "waits near that car",
    "boat": "sails one boat",
}
_PLACES = {
    "beach": ("on the beach", "cyan", "yellow", None),
    "snow": ("in deep snow", "gray", "white", None),
    "park": ("inside a park", "cyan", "green", "tree"),
    "street": ("down a street", "white", "gray", "house"),
    "room": ("at home", "orange", "brown", "lamp"),
}
_HUES = ("red", "blue", "purple", "pink", "black")
_FORMS = (
    "A {who} {does} {where}.",
    "{Where}, a {who} {does}.",
    "The {who} {does} {where}.",
    "There is a {who} that {does} {where}.",
    "A {who} {where} {does}.",
)
_QUESTIONS = (
    "What is happening in the photo?",
    "Describe what the picture shows.",
    "Look at the scene.",
    "Who is doing what, and where?",
)


def sample(rng: np.random.Generator) -> Drawn:
    """An agent and a thing in one of five places; the references come in random order."""
    agent, thing, place = pick(rng, _AGENTS), pick(rng, tuple(_DOING)), pick(rng, tuple(_PLACES))
    hue = pick(rng, _HUES)
    image = _scene(rng, place)
    left = bool(rng.integers(2))
    big, small = between(rng, 20, 23), between(rng, 15, 18)
    down = between(rng, 43, 47)
    at = between(rng, 0, 2) if left else 48 - big - between(rng, 0, 2)
    other = 48 - small - between(rng, 0, 3) if left else between(rng, 0, 3)
    draw.put(image, draw.sprite(agent, big, hue, flip=left), (at, down - big))
    tone = pick(rng, [colour for colour in _HUES if colour != hue])
    draw.put(image, draw.sprite(thing, small, tone), (other, down - small))
    who = f"person in {hue}" if agent == "person" else f"{hue} {agent}"
    where = _PLACES[place][0]
    words = {"who": who, "does": _DOING[thing], "where": where, "Where": where.capitalize()}
    references = [form.format(**words) for form in _FORMS]
    order = rng.permutation(len(references))
    answers = tuple(references[int(index)] for index in order)
    return Drawn(image, ask(rng, _QUESTIONS, CAPTION), answers)


def _scene(rng: np.random.Generator, place: str) -> Image.Image:
    _, sky, ground, mark = _PLACES[place]
    horizon = between(rng, 24, 30)
    image = draw.canvas(draw.mix(sky, "white", 0.6))
    draw.box(image, (0, horizon, 48, 48), draw.mix(ground, "white", 0.35))
    if place == "beach":
        draw.box(image, (0, horizon - 6, 48, horizon), draw.mix("blue", "white", 0.2))
    if place == "snow":
        for x, y in rng.integers(1, 47, size=(14, 2)):
            draw.box(image, (int(x), int(y), int(x) + 2, int(y) + 2), "white")
    if mark:
        size = between(rng, 18, 21)
        spot = (between(rng, 12, 34 - size // 2), horizon - size + 1)
        draw.put(image, draw.sprite(mark, size, {"tree": "green"}.get(mark, "brown")), spot)
    return image
