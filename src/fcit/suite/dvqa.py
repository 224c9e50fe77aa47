"""DVQA in miniature: a bar chart with letters below it, asked for a value, a label or a colour.

Kept: questions about structure (how many bars), data (values, counted on the lines) and reading (a
label is what stands below the bar). Lost: words as labels, groups of bars, lying bars, axis titles
and numbers, sums over bars. Its charts are those of FigureQA.
"""

import numpy as np

from fcit.benchmark.datasets import Split
from fcit.suite.charts import chart
from fcit.suite.drawn import WORD_OR_NUMBER, Drawn, ask, pick, wordings

NAME = "DVQA"

VALUE, LABEL, COLOUR, TALLEST, BARS = wordings(NAME, "value", "label", "colour", "tallest", "bars")


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """Two to five bars on faint lines that are one unit of value apart."""
    image, bars = chart(rng)
    topic = pick(rng, (VALUE, VALUE, VALUE, LABEL, COLOUR, TALLEST, BARS))
    bar = bars[0]
    if topic is TALLEST:
        bar = max(bars, key=lambda bar: bar.value)
    answer = {VALUE: str(bar.value), LABEL: bar.letter, BARS: str(len(bars))}.get(topic, bar.colour)
    prompt = ask(rng, split, topic, WORD_OR_NUMBER, colour=bar.colour, letter=bar.letter)
    return Drawn(image, prompt, (answer,))
