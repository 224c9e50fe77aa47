"""IconQA in miniature: count icons, say which icon is where, take some away or add one.

Kept: flat icons, counting, place and the first sums, as in the original's fill-in questions. Lost:
its choices among pictures, its clocks, coins, lengths and fractions, most of its icons.
"""

import numpy as np

from fcit.benchmark.datasets import Split
from fcit.suite import draw
from fcit.suite.drawn import (
    ADD,
    HOW_MANY,
    TAKE_AWAY,
    WORD,
    Drawn,
    Wordings,
    ask,
    between,
    number_of,
    pick,
    plural,
    some,
    spots,
    wordings,
)

NAME = "IconQA"

COUNTED = ("star", "heart", "flower", "apple", "ball", "fish", "circle", "square", "triangle")
SHOWN = (*COUNTED, "moon", "diamond", "hat", "house", "key", "cup")
MOST = 6
"""The largest number of icons of one kind."""
_SIDES = (("left", (1, 12)), ("right", (25, 12)), ("top", (12, 1)), ("bottom", (12, 25)))
(WHICH,) = wordings(NAME, "which")


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """Up to six equal icons and some others, or two icons to tell apart."""
    topic = pick(rng, (HOW_MANY, HOW_MANY, WHICH, WHICH, TAKE_AWAY, ADD))
    return _which(rng, split) if topic is WHICH else _count(rng, split, topic)


def _count(rng: np.random.Generator, split: Split, topic: Wordings) -> Drawn:
    group, other = some(rng, COUNTED, 2)
    hues = some(rng, draw.HUES, 2)
    if topic is TAKE_AWAY:
        answer = between(rng, 0, MOST - 1)
        counts = (between(rng, 1, 3), answer)
    elif topic is ADD:
        answer = between(rng, 2, MOST + 1)
        others = between(rng, 0, min(2, answer - 2))
        counts = (answer - 1 - others, others)
    else:
        answer = between(rng, 1, MOST)
        counts = (answer, between(rng, 0, 2))
    look = [(group, hues[0])] * counts[0] + [(other, hues[1])] * counts[1]
    image = draw.ground(rng)
    cell = 16 if len(look) <= 6 and rng.random() < 0.7 else 12
    for (icon, hue), (spot, size) in zip(look, spots(rng, len(look), cell), strict=True):
        draw.put(image, draw.sprite(icon, size, hue), spot)
    words = {"group": plural(group), "things": "icons", "more": number_of(1, group)}
    return Drawn(image, ask(rng, split, topic, WORD, **words), (str(answer),))


def _which(rng: np.random.Generator, split: Split) -> Drawn:
    names, hues = some(rng, SHOWN, 2), some(rng, draw.HUES, 2)
    pair = _SIDES[:2] if rng.random() < 0.5 else _SIDES[2:]
    image = draw.ground(rng)
    for name, hue, (_, spot) in zip(names, hues, pair, strict=True):
        size = between(rng, 17, 21)
        draw.put(image, draw.sprite(name, size, hue), draw.jitter(rng, spot))
    asked = int(rng.integers(2))
    return Drawn(image, ask(rng, split, WHICH, WORD, side=pair[asked][0]), (names[asked],))
