"""CLEVR-Math in miniature: a scene of shaded solids, and a number after adding or taking away.

Kept: solids of colours and shapes on a grey ground, the original's subtraction of a group and its
addition. Lost: sizes and materials, objects that hide others, several operations in one question,
adversarial questions.
"""

import numpy as np

from fcit.benchmark.datasets import Split
from fcit.suite import draw
from fcit.suite.draw import SOLIDS
from fcit.suite.drawn import (
    ADD,
    HOW_MANY,
    TAKE_AWAY,
    WORD,
    Drawn,
    ask,
    between,
    grey,
    number_of,
    pick,
    plural,
    some,
    spots,
)

NAME = "CLEVR-Math"

HUES = ("red", "green", "blue", "yellow", "purple", "cyan")
MOST = 7
"""The largest answer."""


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """Two groups, each of one colour and solid, of at most eight objects in all."""
    topic = pick(rng, (TAKE_AWAY, HOW_MANY, ADD))
    hues, kinds = some(rng, HUES, 2), some(rng, SOLIDS, 2)
    more = 0
    if topic is ADD:
        answer = between(rng, 2, MOST)
        more = between(rng, 1, min(3, answer - 1))
        first = between(rng, 0, answer - more)
        counts = [first, answer - more - first]
    else:
        answer = between(rng, 0, MOST)
        other = between(rng, 1, min(3, MOST + 1 - answer))
        if topic is HOW_MANY and answer:
            other -= 1
        counts = [other, answer] if topic is TAKE_AWAY else [answer, other]
    image = grey(rng)
    total = sum(counts)
    look = [(hues[group], kinds[group]) for group, count in enumerate(counts) for _ in range(count)]
    cell = 16 if total <= 6 and rng.random() < 0.7 else 12
    for (hue, kind), (spot, size) in zip(look, spots(rng, total, cell), strict=True):
        draw.put(image, draw.sprite(kind, size, hue), spot)
    group = pick(rng, (f"{hues[0]} {plural(kinds[0])}", f"{hues[0]} objects", plural(kinds[0])))
    added = number_of(more, kinds[0], hues[0])
    prompt = ask(rng, split, topic, WORD, group=group, things="objects", more=added)
    return Drawn(image, prompt, (str(answer),))
