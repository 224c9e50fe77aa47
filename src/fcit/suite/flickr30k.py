"""Flickr30k in miniature: a scene of someone doing something somewhere, captioned five ways.

Kept: a free sentence as the answer, five references that differ in a word or two, scored by n-grams;
what happens must be seen, as sentences share few words and no common form. Lost: photographs, the
breadth of what people notice: four agents, ten deeds and six places make up the world.
"""

import numpy as np
from PIL import Image

from fcit.benchmark.datasets import Split
from fcit.suite import draw
from fcit.suite.drawn import CAPTION, DATA, Drawn, ask, between, pick, wordings

NAME = "Flickr30k"

AGENTS, DEEDS, PLACES = (DATA[NAME][part] for part in ("agents", "deeds", "places"))
HUES = ("red", "blue", "purple", "pink", "black")
(SCENE,) = wordings(NAME, "scene")


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """An agent and a thing in one of six places; the references come in random order."""
    agent, thing, place = (pick(rng, tuple(items)) for items in (AGENTS, DEEDS, PLACES))
    hue = pick(rng, HUES)
    image = _scene(rng, place)
    left = bool(rng.integers(2))
    big, small = between(rng, 20, 23), between(rng, 15, 18)
    down = between(rng, 43, 47)
    at = between(rng, 0, 2) if left else 48 - big - between(rng, 0, 2)
    other = 48 - small - between(rng, 0, 3) if left else between(rng, 0, 3)
    draw.put(image, draw.sprite(agent, big, hue, flip=left), (at, down - big))
    tone = pick(rng, [colour for colour in HUES if colour != hue])
    draw.put(image, draw.sprite(thing, small, tone), (other, down - small))
    references = _references(agent, hue, thing, place)
    answers = tuple(references[int(index)] for index in rng.permutation(len(references)))
    return Drawn(image, ask(rng, split, SCENE, CAPTION), answers)


def _references(agent: str, hue: str, thing: str, place: str) -> list[str]:
    """Five sentences: the wordings of deed and place combined, and one that leaves the colour out."""
    deeds, places = DEEDS[thing], PLACES[place]["wordings"]
    full, short = (form.format(hue=hue) for form in AGENTS[agent])
    choices = [(full, deed, where) for deed in deeds for where in places]
    choices.append((short, deeds[0], places[0]))
    form = "{2} {0} {1}." if PLACES[place].get("fronted") else "{0} {1} {2}."
    sentences = [form.format(*choice) for choice in choices]
    return [sentence[0].upper() + sentence[1:] for sentence in sentences]


def _scene(rng: np.random.Generator, place: str) -> Image.Image:
    horizon, mark = between(rng, 24, 30), PLACES[place].get("mark")
    image = draw.canvas(draw.mix(PLACES[place]["sky"], "white", 0.6))
    draw.box(image, (0, horizon, 48, 48), draw.mix(PLACES[place]["ground"], "white", 0.35))
    if place == "beach":
        draw.box(image, (0, horizon - 6, 48, horizon), draw.mix("blue", "white", 0.2))
    if place == "snow":
        for x, y in rng.integers(1, 47, size=(14, 2)):
            draw.box(image, (int(x), int(y), int(x) + 2, int(y) + 2), "white")
    if mark:
        size = between(rng, 18, 21)
        spot = (between(rng, 12, 34 - size // 2), horizon - size + 1)
        hue = {"tree": "green", "moon": "yellow"}.get(mark, "brown")
        draw.put(image, draw.sprite(mark, size, hue), spot)
    return image
