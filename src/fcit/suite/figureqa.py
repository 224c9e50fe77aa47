"""FigureQA in miniature: a yes/no question about a bar chart whose bars are named by colour.

Kept: the original's questions about maximum and minimum (a third of all), colour names, an even number
of yes and no whatever is named. Lost: four of its five kinds of figure (upright bars only, the charts
of DVQA), its median, smoothness and area questions, and comparisons of two bars, which the base does
not learn; whether a colour occurs and how many bars there are stand in for them.
"""

import numpy as np

from fcit.benchmark.datasets import Split
from fcit.suite.charts import chart
from fcit.suite.draw import HUES
from fcit.suite.drawn import YES_NO, Drawn, ask, pick, wordings

NAME = "FigureQA"

MOST, LEAST, PRESENT, NUMBER = wordings(NAME, "most", "least", "present", "number")


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """Two to five bars; a word in the question is right for them or another is put in its place."""
    image, bars = chart(rng)
    topic = pick(rng, (MOST, LEAST, PRESENT, PRESENT, NUMBER, NUMBER))
    yes = bool(rng.integers(2))
    ranked = sorted(bars, key=lambda bar: bar.value, reverse=topic is MOST)
    colours, number = [bar.colour for bar in ranked], len(bars)
    if topic in (MOST, LEAST):
        colour = colours[0] if yes else pick(rng, colours[1:])
    else:
        colour = pick(rng, colours if yes else [hue for hue in HUES if hue not in colours])
    if not yes:
        number = pick(rng, [other for other in range(2, 6) if other != number])
    prompt = ask(rng, split, topic, YES_NO, one=colour, number=str(number))
    return Drawn(image, prompt, ("yes" if yes else "no",))
