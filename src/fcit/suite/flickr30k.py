"""Flickr30k in miniature: a scene of someone doing something somewhere, captioned five ways.

Kept: a free sentence as the answer, five references that differ in a word or two, scored by n-grams;
what happens must be seen, as sentences share few words and no common form. Lost: photographs, the
breadth of what people notice: four agents, ten deeds and six places make up the world.
"""

import numpy as np
from PIL import Image

from fcit.benchmark.datasets import Split
from fcit.suite import draw
from fcit.suite.drawn import CAPTION, Drawn, ask, between, pick, wordings

NAME = "Flickr30k"

# Few words recur from one agent, deed or place to another: a constant caption should score low.
AGENTS = {
    "person": ("someone in {hue}", "someone"),
    "dog": ("a {hue} dog", "a dog"),
    "cat": ("the {hue} cat", "the cat"),
    "bird": ("one {hue} bird", "one bird"),
}
"""Who does something, with and without a colour."""
DEEDS = {
    "ball": ("plays with balls", "plays ball"),
    "flower": ("smells fresh flowers", "smells flowers"),
    "bike": ("rides bikes", "rides two bikes"),
    "fish": ("looks at fish", "looks for fish"),
    "umbrella": ("carries an umbrella", "holds an umbrella"),
    "apple": ("eats apples", "eats big apples"),
    "car": ("drives cars", "drives new cars"),
    "boat": ("sails boats", "sails small boats"),
    "cup": ("drinks tea", "drinks hot tea"),
    "key": ("finds keys", "finds lost keys"),
}
"""What is done with a thing, in two wordings that mean the same."""
PLACES = {
    "beach": (("on sunny sand", "upon sunny sand"), "cyan", "yellow", None),
    "snow": (("in deep snow", "through deep snow"), "gray", "white", None),
    "park": (("under green trees", "below green trees"), "cyan", "green", "tree"),
    "street": (("down our street", "along our street"), "white", "gray", "house"),
    "room": (("inside their home", "inside her home"), "orange", "brown", "lamp"),
    "night": (("late at night", "deep at night"), "black", "purple", "moon"),
}
"""A place in two wordings, the colours of what is above and below, and what stands there."""
FRONTED = ("snow", "street", "night")
"""Places that a sentence begins with."""
HUES = ("red", "blue", "purple", "pink", "black")
(SCENE,) = wordings(NAME, "scene")


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """An agent and a thing in one of six places; the references come in random order."""
    agent, thing, place = (
        pick(rng, tuple(AGENTS)),
        pick(rng, tuple(DEEDS)),
        pick(rng, tuple(PLACES)),
    )
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
    deeds, places = DEEDS[thing], PLACES[place][0]
    full, short = (form.format(hue=hue) for form in AGENTS[agent])
    choices = [(full, deed, where) for deed in deeds for where in places]
    choices.append((short, deeds[0], places[0]))
    if place in FRONTED:
        sentences = [f"{where} {who} {deed}." for who, deed, where in choices]
    else:
        sentences = [f"{who} {deed} {where}." for who, deed, where in choices]
    return [sentence[0].upper() + sentence[1:] for sentence in sentences]


def _scene(rng: np.random.Generator, place: str) -> Image.Image:
    _, sky, ground, mark = PLACES[place]
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
        draw.put(
            image,
            draw.sprite(mark, size, {"tree": "green", "moon": "yellow"}.get(mark, "brown")),
            spot,
        )
    return image
