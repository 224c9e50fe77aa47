"""ArxivQA in miniature: a small scientific figure and a question with four lettered options.

Kept: figures of several kinds, options of one or two words, a letter as the answer. Lost: text in
figures, figures of several panels, long options, the science: kind, trend and colour can be seen.
"""

import numpy as np
from PIL import Image, ImageDraw

from fcit.benchmark.datasets import Split
from fcit.suite import draw
from fcit.suite.drawn import LETTER, Drawn, ask, between, pick, some, wordings

NAME = "ArxivQA"

_AREA = (6, 4, 46, 43)
HUES = ("red", "green", "blue", "yellow", "purple", "orange")
KINDS = ("line plot", "bar chart", "scatter plot", "pie chart", "heat map")
TRENDS = ("increases", "decreases", "peaks", "dips")
KIND, TREND, COLOUR = wordings(NAME, "kind", "trend", "colour")


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """A line plot, bar chart, scatter plot, pie chart or heat map, and a letter from A to D."""
    topic = pick(rng, (KIND, TREND, COLOUR))
    kind, trend, hue = pick(rng, KINDS), pick(rng, TRENDS), pick(rng, HUES)
    if topic is TREND:
        kind = pick(rng, KINDS[:3])
    image = draw.canvas()
    _FIGURES[kind](rng, image, _course(rng, trend), hue)
    right, pool = {KIND: (kind, KINDS), TREND: (trend, TRENDS), COLOUR: (hue, HUES)}[topic]
    letter = between(rng, 0, 3)
    options = some(rng, [word for word in pool if word != right], 3)
    options.insert(letter, right)
    listed = "\n".join(f"{mark}) {word}" for mark, word in zip("ABCD", options, strict=True))
    prompt = ask(rng, split, topic, f"Options:\n{listed}\n{LETTER}")
    return Drawn(image, prompt, ("ABCD"[letter],))


def _course(rng: np.random.Generator, trend: str) -> list[float]:
    """Six heights from 0 to 1 that follow the trend, a little unevenly."""
    up = np.linspace(0.12, 0.92, 6)
    hill = np.array([0.12, 0.5, 0.88, 0.92, 0.5, 0.14])
    shape = {"increases": up, "decreases": up[::-1], "peaks": hill, "dips": 1.04 - hill}[trend]
    return [float(value) for value in np.clip(shape + rng.uniform(-0.06, 0.06, 6), 0.06, 1.0)]


def _points(course: list[float]) -> list[draw.Point]:
    left, top, right, bottom = _AREA
    step = (right - left - 4) / 5
    return [
        (round(left + 2 + step * index), round(bottom - 1 - height * (bottom - top - 2)))
        for index, height in enumerate(course)
    ]


def _lines(rng: np.random.Generator, image: Image.Image, course: list[float], hue: str) -> None:
    draw.axes(image, _AREA)
    draw.line(image, _points(course), hue, width=between(rng, 2, 3))


def _bars(rng: np.random.Generator, image: Image.Image, course: list[float], hue: str) -> None:
    draw.axes(image, _AREA)
    draw.bars(image, _AREA, course, [hue] * len(course), gap=between(rng, 1, 3))


def _scatter(rng: np.random.Generator, image: Image.Image, course: list[float], hue: str) -> None:
    draw.axes(image, _AREA)
    half = draw.sprite("circle", 6, hue)
    for x, y in _points(course):
        draw.put(image, half, draw.jitter(rng, (max(6, min(x - 3, 40)), max(2, min(y - 3, 36)))))


def _pie(rng: np.random.Generator, image: Image.Image, course: list[float], hue: str) -> None:
    ink, turn, total = ImageDraw.Draw(image), between(rng, 0, 359), sum(course[:4])
    grow = between(rng, 0, 3)
    where = (3 + grow, 3 + grow, 44 - grow, 44 - grow)
    for index, share in enumerate(course[:4]):
        end = turn + 360 * share / total
        tone = draw.mix(hue, "white", (0.0, 0.55, 0.2, 0.75)[index])
        ink.pieslice(where, turn, end, fill=tone, outline=draw.rgb("black"))
        turn = end


def _heat(rng: np.random.Generator, image: Image.Image, course: list[float], hue: str) -> None:
    cells = between(rng, 4, 6)
    side = 42 // cells
    for row, column in np.ndindex(cells, cells):
        tone = draw.mix(hue, "white", float(rng.uniform(0.0, 0.8)))
        x, y = 3 + column * side, 3 + row * side
        draw.box(image, (x, y, x + side, y + side), tone)


_FIGURES = dict(zip(KINDS, (_lines, _bars, _scatter, _pie, _heat), strict=True))
