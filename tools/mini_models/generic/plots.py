"""Pictures of data: bars, lines, dots, pies and shades."""

from __future__ import annotations

from itertools import pairwise
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from fcit.suite import draw
from fcit.suite.draw import CELL
from fcit.suite.drawn import pick, some
from tools.mini_models.generic.objects import DIGITS
from tools.mini_models.generic.scene import Saying, Scene, Thing, ask, chance, claim
from tools.mini_models.generic.writing import LETTERS, ROWS, write

COLOURS: tuple[str, ...] = (*draw.HUES, "brown", "black", "gray")
TYPES = ("bar chart", "line plot", "scatter plot", "pie chart", "heat map")
TRENDS = {
    "rising": (0.1, 0.3, 0.5, 0.7, 0.9),
    "falling": (0.9, 0.7, 0.5, 0.3, 0.1),
    "flat": (0.5, 0.5, 0.5, 0.5, 0.5),
    "peak": (0.1, 0.5, 0.9, 0.5, 0.1),
    "valley": (0.9, 0.5, 0.1, 0.5, 0.9),
    "waves": (0.2, 0.8, 0.2, 0.8, 0.2),
}
UNIT, FLOOR, GRID = 5, 40, (205, 205, 205)
"""Pixels of one unit of height, where bars stand, and the tone of the lines behind them."""


def _about_type(rng: np.random.Generator, right: str) -> list[Saying]:
    wordings = ("Which sort of drawing of data is it?", "Name the sort of plot.", "Plot?")
    return [ask(rng, "plot type", wordings, right, TYPES)]


def bars(rng: np.random.Generator) -> Scene:
    """Two to five bars of one to seven units, usually with a letter below each."""
    count = int(rng.integers(2, 6))
    colours = some(rng, draw.HUES if chance(rng, 0.7) else COLOURS, count)
    values = [int(value) for value in rng.integers(1, 8, size=count)]
    if chance(rng, 0.6):
        values = [int(value) + 1 for value in rng.permutation(7)[:count]]
    columns = sorted(some(rng, range(ROWS), count))
    image = draw.canvas(pick(rng, ("white", "white", (255, 246, 224), (240, 240, 240))))
    if chance(rng, 0.7):
        for number in range(1, 8):
            draw.line(image, [(0, FLOOR - number * UNIT), (47, FLOOR - number * UNIT)], GRID)
    draw.line(image, [(0, FLOOR), (47, FLOOR)])
    inset, wide = int(rng.integers(0, 2)), int(rng.integers(6, 8))
    things: list[Thing] = []
    for column, colour, value in zip(columns, colours, values, strict=True):
        left = column * CELL + inset
        box = (left, FLOOR - value * UNIT, left + wide, FLOOR)
        draw.box(image, box, colour)
        things.append(Thing("bar", colour, box))
    letters = some(rng, LETTERS, count) if chance(rng, 0.75) else []
    for column, letter in zip(columns, letters, strict=False):
        things += write(image, (column, ROWS - 1), letter, "black")
    sayings = _about_bars(rng, colours, values)
    for letter, value, colour in some(rng, list(zip(letters, values, colours, strict=False)), 2):
        sayings += [
            ask(rng, "lettered bar", (f"Over {letter}, how high?", f"{letter}: units?"),
                str(value), DIGITS),
            ask(rng, "lettered color", (f"Over {letter}, which color?", f"{letter}: color?"),
                colour, colours),
            ask(rng, "bar letter", (f"Which letter stands under {colour}?", f"{colour}: letter?"),
                letter, letters),
        ]  # fmt: skip
    listed = ", ".join(f"{name} {value}" for name, value in zip(colours, values, strict=True))
    return Scene(image, tuple(sayings), f"bars {listed}", tuple(things))


def _about_bars(rng: np.random.Generator, colours: list[str], values: list[int]) -> list[Saying]:
    sayings = _about_type(rng, "bar chart")
    for index in some(rng, range(len(values)), 3):
        wordings = (f"How many units has {colours[index]}?", f"Measure {colours[index]}.",
                    f"{colours[index]}: units?")  # fmt: skip
        sayings.append(ask(rng, "bar height", wordings, str(values[index]), DIGITS))
    sayings += [
        ask(rng, "bar count", ("How many bars?", "Count the bars."), str(len(values)), DIGITS),
        ask(rng, "bar first", ("Name the color of the leftmost bar.",), colours[0], colours),
        ask(rng, "bar order", ("Name the bar colors in order.", "Bars?"), " ".join(colours)),
    ]
    other = pick(rng, COLOURS)
    sayings.append(claim(rng, "bar", (f"Has any bar the color {other}?",), other in colours))
    sayings += _ranked(rng, "bar", ("longest", "tallest"), ("shortest", "least"), colours, values)
    match = pick(rng, values)
    if values.count(match) == 1:
        right = colours[values.index(match)]
        sayings.append(
            ask(rng, "bar with", (f"Which color measures {match} units?",), right, colours)
        )
    return sayings


def _ranked(
    rng: np.random.Generator,
    skill: str,
    most: tuple[str, ...],
    least: tuple[str, ...],
    colours: list[str],
    values: list[int],
) -> list[Saying]:
    """Questions about the maximum, the minimum, and comparisons of two colours."""
    sayings: list[Saying] = []
    for words, end, value in ((most, "top", max(values)), (least, "low", min(values))):
        if values.count(value) == 1:
            right, word = colours[values.index(value)], pick(rng, words)
            wordings = (f"Color of the {word} {skill}?", f"Find the {word} {skill}.", f"{word}?")
            sayings += [ask(rng, f"{skill} {end}", wordings, right, colours) for _ in range(2)]
    for _ in range(2):
        one, two = some(rng, range(len(values)), 2)
        if values[one] != values[two]:
            word, more = pick(rng, ((most[0], True), (least[0], False)))
            word = {"longest": "longer", "shortest": "shorter", "widest": "wider",
                    "thinnest": "thinner"}[word]  # fmt: skip
            text = (f"Next to {colours[two]}, would you say {colours[one]} is {word}?",
                    f"{colours[one]} {word} than {colours[two]}?")  # fmt: skip
            sayings.append(claim(rng, f"{skill} pair", text, (values[one] > values[two]) == more))
    return sayings


def _strokes(points: list[tuple[int, int]], colour: str, width: int) -> list[Thing]:
    """Short pieces along a line, as labels of the patches it crosses."""
    found: list[Thing] = []
    for (x, y), (u, v) in pairwise(points):
        steps = max(1, max(abs(u - x), abs(v - y)) // 3)
        for step in range(steps + 1):
            a, b = x + (u - x) * step // steps, y + (v - y) * step // steps
            reach = 1 + width
            box = (a - reach, b - reach, a + reach, b + reach)
            found.append(Thing("line", colour, box, part=True))
    return found


def curves(rng: np.random.Generator) -> Scene:
    """One to three lines with a trend each."""
    count = int(rng.integers(1, 4))
    colours, names = some(rng, COLOURS, count), some(rng, list(TRENDS), count)
    image = draw.canvas("white")
    draw.axes(image, (4, 2, 46, 44))
    things: list[Thing] = []
    for colour, name in zip(colours, names, strict=True):
        shift, scale = float(rng.uniform(-0.1, 0.1)), float(rng.uniform(0.55, 1.0))
        heights = [
            0.5 + (level - 0.5) * scale + shift + float(rng.normal(0, 0.03))
            for level in TRENDS[name]
        ]
        if name == "flat":
            move = float(rng.uniform(-0.35, 0.35))
            heights = [level + move for level in heights]
        points = [
            (5 + 10 * index, round(43 - 40 * min(1.0, max(0.0, level))))
            for index, level in enumerate(heights)
        ]
        width = int(rng.integers(1, 4))
        draw.line(image, points, colour, width)
        things += _strokes(points, colour, width)
    sayings = _about_type(rng, "line plot")
    for colour, name in zip(colours, names, strict=True):
        wordings = (f"Describe the course of {colour}.", f"How does {colour} go?", f"{colour}?")
        sayings += [
            ask(rng, "trend", wordings, name, tuple(TRENDS)),
            ask(rng, "trend of", (f"Which color shows a course that is {name}?",), colour, colours),
        ]
    wordings = ("How many lines run across?",)
    sayings.append(ask(rng, "line count", wordings, str(count), DIGITS))
    listed = ", ".join(f"{colour} {name}" for colour, name in zip(colours, names, strict=True))
    return Scene(image, tuple(sayings), f"lines {listed}", tuple(things))


def slices(rng: np.random.Generator) -> Scene:
    """A pie with two to four slices."""
    count = int(rng.integers(2, 5))
    colours = some(rng, COLOURS, count)
    values = [int(value) + 1 for value in rng.permutation(5)[:count]]
    image = draw.canvas("white")
    pen, start, inset = ImageDraw.Draw(image), float(rng.uniform(0, 360)), int(rng.integers(2, 6))
    edge = draw.rgb("black") if chance(rng, 0.5) else None
    things: list[Thing] = []
    for colour, value in zip(colours, values, strict=True):
        end = start + 360 * value / sum(values)
        fill = draw.rgb(colour)
        pen.pieslice((inset, inset, 47 - inset, 47 - inset), start, end, fill=fill, outline=edge)
        things += _wedge(start, end, 23 - inset, colour)
        start = end
    sayings = [
        *_about_type(rng, "pie chart"),
        ask(rng, "slice count", ("How many slices?",), str(count), DIGITS),
        *_ranked(rng, "slice", ("widest",), ("thinnest",), colours, values),
    ]
    order = [colours[int(index)] for index in np.argsort([-value for value in values])]
    return Scene(image, tuple(sayings), "pie chart, " + ", ".join(order), tuple(things))


def _wedge(start: float, end: float, radius: int, tone: str) -> list[Thing]:
    found: list[Thing] = []
    for turn in np.arange(start + 4, end, 12.0):
        for share in (0.3, 0.6, 0.9):
            angle = turn * pi / 180
            x, y = (round(24 + radius * share * f(angle)) for f in (cos, sin))
            found.append(Thing("slice", tone, (x - 2, y - 2, x + 2, y + 2), part=True))
    return found


def series(rng: np.random.Generator) -> Scene:
    """One row of data in one colour, drawn as a line, bars or dots; or a field of shades."""
    colour, sort = pick(rng, COLOURS), pick(rng, TYPES)
    name = pick(rng, [name for name in TRENDS if name not in ("flat", "waves")])
    image = draw.canvas("white")
    count = int(rng.integers(5, 8))
    heights = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, 5), TRENDS[name])
    heights = np.clip(heights + rng.uniform(-0.06, 0.06, count), 0.06, 1.0)
    if sort == "heat map":
        things = _shades(rng, image, count, colour)
    elif sort == "pie chart":
        things = _tones(rng, image, heights[:4], colour)
    else:
        things = _drawn(rng, image, heights, sort, colour)
    sayings = [
        *_about_type(rng, sort),
        *_about_type(rng, sort),
        ask(rng, "series color", ("Color that the plot uses?", "Plot's color?"), colour, COLOURS),
    ]
    caption = f"{sort}, {colour}"
    if sort not in ("heat map", "pie chart"):
        caption += f", {name}"
        wordings = ("Describe the course.", "How does it go?", "Course?")
        sayings += [ask(rng, "series", wordings, name, tuple(TRENDS)) for _ in range(2)]
    return Scene(image, tuple(sayings), caption, tuple(things))


def _shades(rng: np.random.Generator, image: Image.Image, count: int, colour: str) -> list[Thing]:
    side = 42 // count
    found: list[Thing] = []
    for row, column in np.ndindex(count, count):
        tone = draw.mix(colour, "white", float(rng.uniform(0.0, 0.85)))
        x, y = 3 + column * side, 3 + row * side
        draw.box(image, (x, y, x + side, y + side), tone)
        found.append(Thing("cell", colour, (x, y, x + side, y + side), part=True))
    return found


def _tones(
    rng: np.random.Generator, image: Image.Image, sizes: np.ndarray, colour: str
) -> list[Thing]:
    pen, start = ImageDraw.Draw(image), float(rng.uniform(0, 360))
    found: list[Thing] = []
    for index, size in enumerate(sizes):
        end = start + 360 * float(size) / float(sizes.sum())
        tone = draw.mix(colour, "white", (0.0, 0.5, 0.25, 0.75)[index])
        pen.pieslice((4, 4, 44, 44), start, end, fill=tone, outline=draw.rgb("black"))
        found += _wedge(start, end, 20, colour)
        start = end
    return found


def _drawn(
    rng: np.random.Generator, image: Image.Image, heights: np.ndarray, sort: str, colour: str
) -> list[Thing]:
    where = (int(rng.integers(3, 8)), int(rng.integers(2, 6)), 46, int(rng.integers(42, 46)))
    draw.axes(image, where)
    wide, high = where[2] - where[0] - 5, where[3] - where[1] - 3
    dots = [
        (round(where[0] + 2 + wide * float(x)), round(where[3] - 2 - high * float(y)))
        for x, y in zip(np.linspace(0, 1, len(heights)), heights, strict=True)
    ]
    if sort == "bar chart":
        steps = [float(height) for height in heights]
        gap = int(rng.integers(1, 4))
        boxes = draw.bars(image, where, steps, [colour] * len(steps), gap)
        return [Thing("bar", colour, box) for box in boxes]
    if sort == "line plot":
        width = int(rng.integers(1, 4))
        draw.line(image, dots, colour, width)
        return _strokes(dots, colour, width)
    half, round_ = int(rng.integers(2, 4)), chance(rng, 0.5)
    found: list[Thing] = []
    for x, y in dots:
        box = (x - half, y - half, x + half, y + half)
        if round_:
            draw.put(image, draw.sprite("circle", 2 * half, colour), (x - half, y - half))
        else:
            draw.box(image, box, colour)
        found.append(Thing("dots", colour, (x - 3, y - 3, x + 3, y + 3), part=True))
    return found
