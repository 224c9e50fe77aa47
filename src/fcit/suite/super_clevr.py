"""super-CLEVR in miniature: coloured vehicles, asked for attributes and counts.

Kept: vehicles on the ground of CLEVR, the original's questions about colour, kind and number. Lost:
parts, sizes, materials and textures, relations between vehicles, the original's chains of steps.
"""

import numpy as np

from fcit.benchmark.datasets import Split
from fcit.suite import draw
from fcit.suite.drawn import (
    HOW_MANY,
    WORD,
    Drawn,
    ask,
    between,
    grey,
    pick,
    plural,
    some,
    spots,
    wordings,
)

NAME = "super-CLEVR"

VEHICLES = ("car", "bus", "truck", "bike", "plane")
MOST = 4
"""The largest count."""
COLOUR, KIND = wordings(NAME, "colour", "kind")


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """Two to four different vehicles to describe, or some to count."""
    image = grey(rng)
    topic = pick(rng, (COLOUR, KIND, KIND, HOW_MANY, HOW_MANY))
    number = between(rng, 1, MOST) if topic is HOW_MANY else between(rng, 2, MOST)
    kinds, hues = some(rng, VEHICLES, number), some(rng, draw.HUES, number)
    answer, group = str(number), "vehicles"
    if topic is HOW_MANY and rng.random() < 0.5:
        kind, other = some(rng, VEHICLES, 2)
        others = between(rng, 0, MOST + 1 - number)
        kinds, group = [kind] * number + [other] * min(others, 2), plural(kind)
        hues = [pick(rng, draw.HUES) for _ in kinds]
    for kind, hue, (spot, size) in zip(kinds, hues, spots(rng, len(kinds), 16), strict=True):
        draw.put(image, draw.sprite(kind, size, hue, flip=bool(rng.integers(2))), spot)
    if topic is not HOW_MANY:
        answer = hues[0] if topic is COLOUR else kinds[0]
    return Drawn(
        image,
        ask(rng, split, topic, WORD, kind=kinds[0], colour=hues[0], group=group),
        (answer,),
    )
