"""A-OKVQA in miniature: an object, and a question whose answer is knowledge about it.

Kept: what is asked for (a place, a use, a material) cannot be seen, only known. Lost: photographs of
whole scenes, knowledge beyond twenty-two objects, reasoning over several steps, ten people's answers.
"""

import numpy as np

from fcit.benchmark.datasets import Split
from fcit.suite import draw
from fcit.suite.drawn import DATA, ONE_WORD, Drawn, ask, between, pick, wordings

NAME = "A-OKVQA"

WHERE, WHY, WHAT = wordings(NAME, "where", "why", "what")
FACTS = {WHERE: DATA[NAME]["places"], WHY: DATA[NAME]["uses"], WHAT: DATA[NAME]["substances"]}


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """One large object beside small plain shapes; the answer is one word."""
    topic, facts = pick(rng, tuple(FACTS.items()))
    answer = pick(rng, tuple(dict.fromkeys(facts.values())))
    name = pick(rng, [thing for thing, fact in facts.items() if fact == answer])
    image = draw.ground(rng)
    sizes = [between(rng, 25, 32), *([between(rng, 7, 9)] * between(rng, 0, 2))]
    spots = draw.place(rng, sizes)
    draw.put(image, draw.sprite(name, sizes[0], pick(rng, draw.HUES)), spots[0])
    for size, spot in zip(sizes[1:], spots[1:], strict=True):
        shape = pick(rng, ("circle", "square", "triangle"))
        draw.put(image, draw.sprite(shape, size, pick(rng, draw.HUES)), spot)
    return Drawn(image, ask(rng, split, topic, ONE_WORD), (answer,))
