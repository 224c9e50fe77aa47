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

VALUE = wordings("""
    What is the value of the {colour} bar?
    What value does the {colour} bar have in the chart?
    How high is the value of the {colour} bar?
    Here is a chart. What is the value of {colour}?
    Count the lines. What is the value of the {colour} bar?
    test: Which value does the {colour} bar reach?
    test: What is the value of the bar in {colour}?
""")
LABEL = wordings("""
    What is the label of the {colour} bar?
    Which label does the {colour} bar have in the chart?
    What label is written below the {colour} bar?
    Look closely. Which letter is below the {colour} bar?
    Which letter is the label of the {colour} bar?
    test: Which letter is written below the {colour} bar?
    test: What is the label below the bar in {colour}?
""")
COLOUR = wordings("""
    What is the color of bar {letter}?
    Which color does the bar with the label {letter} have?
    What color is the bar above the letter {letter}?
    Here is a chart. What is the color of {letter}?
    In which color is bar {letter} drawn?
    test: Which color does bar {letter} have?
    test: Find the label {letter}. What color is its bar?
""")
TALLEST = wordings("""
    What is the color of the tallest bar in the chart?
    Which color does the largest bar have?
    What color is the bar with the highest value?
    Look closely. What is the color of the highest bar?
    test: In which color is the highest bar drawn?
    test: Which color has the highest value in the chart?
""")
BARS = wordings("""
    How many bars are there in the chart?
    What is the total number of bars?
    How many bars does the chart show?
    Here is a chart. How many bars are in it?
    test: How many bars does this chart have?
    test: What is the number of bars in the chart?
""")


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
