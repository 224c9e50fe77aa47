"""FigureQA in miniature: a yes/no question about a bar chart whose bars are named by colour.

Kept: the original's templates (maximum, minimum, greater, less), colour names, an even number of
yes and no whatever is named. Lost: four of its five kinds of figure (upright bars only, the charts
of DVQA), its median, smoothness and area questions.
"""

from __future__ import annotations

import numpy as np

from fcit.benchmark.datasets import Split
from fcit.benchmark.mini.charts import APART, chart
from fcit.benchmark.mini.drawn import YES_NO, Drawn, Wordings, ask, pick

NAME = "FigureQA"

MOST = Wordings(
    (
        "Is the {one} bar the maximum?",
        "Does the {one} bar have the highest value?",
        "Is {one} the largest bar in the chart?",
        "Here is a chart. Is {one} the maximum?",
        "Look closely. Is the {one} bar the highest?",
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
        "Look closely. Is the {one} bar the lowest?",
    ),
    (
        "Would you say that {one} is the minimum here?",
        "Of all bars, is the {one} one the shortest?",
    ),
)
MORE = Wordings(
    (
        "Is {one} greater than {two} in the chart?",
        "Is the {one} bar higher than the {two} bar?",
        "Is the value of {one} greater than that of {two}?",
        "Look closely. Is {one} larger than {two}?",
        "Does {one} have a higher value than {two}?",
    ),
    (
        "Would you say that {one} is greater than {two}?",
        "Does the {one} bar rise above the {two} bar?",
    ),
)
LESS = Wordings(
    (
        "Is {one} less than {two} in the chart?",
        "Is the {one} bar lower than the {two} bar?",
        "Is the value of {one} less than that of {two}?",
        "Look closely. Is {one} smaller than {two}?",
        "Does {one} have a lower value than {two}?",
    ),
    (
        "Would you say that {one} is less than {two}?",
        "Does the {one} bar stay below the {two} bar?",
    ),
)


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """Two to five bars; the one that is asked for differs by two units from what it is compared to."""
    image, bars = chart(rng)
    ranked = sorted(bars, key=lambda bar: bar.value)
    yes = bool(rng.integers(2))
    topic = pick(rng, (MOST, LEAST, MORE, LESS))
    if topic in (MOST, LEAST):
        right = ranked[-1] if topic is MOST else ranked[0]
        one = right if yes else pick(rng, [bar for bar in bars if bar is not right])
        two = right
    else:
        low, high = pick(
            rng, [(a, b) for a in ranked for b in ranked if b.value - a.value >= APART]
        )
        one, two = (high, low) if yes == (topic is MORE) else (low, high)
    prompt = ask(rng, split, topic, YES_NO, one=one.colour, two=two.colour)
    return Drawn(image, prompt, ("yes" if yes else "no",))
