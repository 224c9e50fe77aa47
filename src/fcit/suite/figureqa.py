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

MOST = wordings("""
    Is the {one} bar the maximum?
    Does the {one} bar have the highest value?
    Is {one} the largest bar in the chart?
    Here is a chart. Is {one} the maximum?
    Is the highest bar {one}?
    Look at the bar with the highest value. Is it {one}?
    test: Would you say that {one} is the maximum here?
    test: Is the {one} bar the highest of all bars?
""")
LEAST = wordings("""
    Is the {one} bar the minimum?
    Does the {one} bar have the lowest value?
    Is {one} the smallest bar in the chart?
    Here is a chart. Is {one} the minimum?
    Is the lowest bar {one}?
    Look at the bar with the lowest value. Is it {one}?
    test: Would you say that {one} is the minimum here?
    test: Is the {one} bar the lowest of all bars?
""")
PRESENT = wordings("""
    Is there a bar whose color is {one}?
    Does the chart have a bar in {one}?
    Is any bar in the figure {one}?
    Here is a chart. Is one of its bars {one}?
    Does the color {one} appear in the chart?
    test: Can you find a {one} bar here?
    test: Is there a {one} bar in the chart?
""")
NUMBER = wordings("""
    Is the number of bars in the chart {number}?
    Does the chart have {number} bars?
    Does the figure show {number} bars?
    Here is a chart. Is the number of its bars {number}?
    Count the bars. Is the total {number}?
    test: Do you count {number} bars in the chart?
    test: Does the figure have {number} bars?
""")


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """Two to five bars; a word in the question is right for them or another is put in its place."""
    image, bars = chart(rng)
    topic = pick(rng, (MOST, LEAST, PRESENT, PRESENT, NUMBER, NUMBER))
    yes = bool(rng.integers(2))
    ranked = sorted(bars, key=lambda bar: bar.value, reverse=topic is MOST)
    colours, number = [bar.colour for bar in ranked], len(bars)
    if topic in (MOST, LEAST):
        one = colours[0] if yes else pick(rng, colours[1:])
    else:
        one = pick(rng, colours if yes else [hue for hue in HUES if hue not in colours])
    if not yes:
        number = pick(rng, [other for other in range(2, 6) if other != number])
    prompt = ask(rng, split, topic, YES_NO, one=one, number=str(number))
    return Drawn(image, prompt, ("yes" if yes else "no",))
