"""DVQA in miniature: a labelled bar chart, asked for a value, a label, a colour or a count."""

from __future__ import annotations

import numpy as np

from fcit.benchmark import draw
from fcit.benchmark.mini.drawn import WORD, Drawn, ask, between, pick, some

NAME = "DVQA"

_AREA = (3, 2, 47, 33)
_UNIT = 5
"""Pixels of height for one unit of value, 1 to 6."""
_LABELS = tuple("ACEFHJKLPRSTUX")
_VALUE = (
    "What is the value of the {colour} bar?",
    "What value does the {colour} bar have in the chart?",
    "How high is the value of the {colour} bar?",
)
_LABEL = (
    "What is the label of the {colour} bar?",
    "Which label does the {colour} bar have in the chart?",
    "What label is written below the {colour} bar?",
)
_TALLEST = (
    "What is the color of the tallest bar in the chart?",
    "Which color does the largest bar have?",
)
_BARS = ("How many bars are there in the chart?", "What is the total number of bars?")


def sample(rng: np.random.Generator) -> Drawn:
    """Two to five bars with letters below them, on faint lines one unit of value apart."""
    topic = pick(rng, ("value", "value", "label", "tallest", "bars"))
    number = between(rng, 2, 5) if topic == "bars" else between(rng, 2, 4)
    hues, letters = some(rng, draw.HUES, number), some(rng, _LABELS, number)
    values = [between(rng, 1, 6) for _ in hues]
    if topic == "tallest":
        top = between(rng, 3, 6)
        values = [top] + [between(rng, 1, top - 1) for _ in hues[1:]]
    left, top_edge, right, bottom = _AREA
    image = draw.canvas()
    for value in range(1, 7):
        level = bottom - value * _UNIT
        draw.line(image, [(left, level), (right, level)], (205, 205, 205))
    draw.axes(image, _AREA)
    order = [int(index) for index in rng.permutation(number)]
    heights = [values[index] * _UNIT / (bottom - top_edge) for index in order]
    boxes = draw.bars(image, _AREA, heights, [hues[index] for index in order], between(rng, 2, 4))
    for index, (x, _, end, _) in zip(order, boxes, strict=True):
        width = draw.text_width(letters[index], 2)
        draw.text(image, ((x + end - width) // 2, bottom + 3), letters[index], "black", 2)
    questions, answer = {
        "value": (_VALUE, str(values[0])),
        "label": (_LABEL, letters[0]),
        "tallest": (_TALLEST, hues[0]),
        "bars": (_BARS, str(number)),
    }[topic]
    return Drawn(image, ask(rng, questions, WORD, colour=hues[0]), (answer,))
