"""FigureQA in miniature: a yes/no question about a bar chart whose bars are named by colour.

Kept: the original's questions about maximum and minimum, colour names, an even number of yes and no
whatever is named. Lost: four of its five kinds of figure (upright bars only, the charts of DVQA), its
median, smoothness and area questions, and comparisons of two bars, which the base does not learn.
"""

from __future__ import annotations

import numpy as np

from fcit.benchmark.datasets import Split
from fcit.benchmark.mini.charts import chart
from fcit.benchmark.mini.drawn import YES_NO, Drawn, Wordings, ask, pick

NAME = "FigureQA"

MOST = Wordings(
    (
        "Is the {one} bar the maximum?",
        "Does the {one} bar have the highest value?",
        "Is {one} the largest bar in the chart?",
        "Here is a chart. Is {one} the maximum?",
        "Is the highest bar {one}?",
        "Look at the bar with the highest value. Is it {one}?",
    ),
    (
        "Would you say that {one} is the maximum here?",
        "Of all bars, is the {one} one the tallest?",
    ),
)
LEAST = Wordings(
    (
        "Is the {one} bar the minimum?",
        "Does the {one} bar have the lowest value?",
        "Is {one} the smallest bar in the chart?",
        "Here is a chart. Is {one} the minimum?",
        "Is the lowest bar {one}?",
        "Look at the bar with the lowest value. Is it {one}?",
    ),
    (
        "Would you say that {one} is the minimum here?",
        "Of all bars, is the {one} one the shortest?",
    ),
)


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """Two to five bars; a named one is the largest (the smallest) or another."""
    image, bars = chart(rng)
    topic = pick(rng, (MOST, LEAST))
    ranked = sorted(bars, key=lambda bar: bar.value, reverse=topic is MOST)
    yes = bool(rng.integers(2))
    one = ranked[0] if yes else pick(rng, ranked[1:])
    prompt = ask(rng, split, topic, YES_NO, one=one.colour)
    return Drawn(image, prompt, ("yes" if yes else "no",))
