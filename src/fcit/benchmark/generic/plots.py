"""Pictures of data: bars, lines, points and slices."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw

from fcit.benchmark import draw
from fcit.benchmark.generic.scene import (
    Saying,
    Scene,
    Thing,
    agree,
    ask,
    chance,
    choose,
    pick,
    some,
)
from fcit.benchmark.generic.writing import write

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


def _about_type(rng: np.random.Generator, right: str) -> list[Saying]:
    return [
        ask(rng, "plot type", ("Which sort of drawing of data is it?", "Name the sort of plot."),
            right),
        choose(rng, "plot type letter", "Which sort of plot?", right, TYPES),
        agree(rng, "plot type yes/no", ("Would you call it a {}?",), right, TYPES),
    ]  # fmt: skip


def bars(rng: np.random.Generator) -> Scene:
    """Two to five bars with heights of one to ten tenths."""
    count = int(rng.integers(2, 6))
    colours = some(rng, COLOURS, count)
    sideways = chance(rng, 0.25)
    lettered = not sideways and chance(rng, 0.5)
    large = lettered and count < 5 and chance(rng, 0.7)
    foot = (13 if large else 7) if lettered else 2
    units = int(rng.integers(5, 9)) if lettered else pick(rng, (5, 6, 8, 10))
    values = [int(value) for value in rng.integers(1, units + 1, size=count)]
    if chance(rng, 0.5) and count <= units:
        values = [int(value) + 1 for value in rng.permutation(units)[:count]]
    image = draw.canvas("white")
    where = (int(rng.integers(2, 7)), int(rng.integers(1, 4)), 47, 48 - foot)
    for number in range(1, units + 1):
        share = number / units
        y = round(where[3] - (where[3] - where[1]) * share)
        x = round(where[0] + (where[2] - where[0]) * share)
        ends = [(x, where[1]), (x, where[3])] if sideways else [(where[0], y), (where[2], y)]
        draw.line(image, ends, draw.mix("gray", "white", 0.6))
    draw.axes(image, where)
    spots = draw.bars(image, where, [value / units for value in values], colours,
                      int(rng.integers(1, 5)), sideways)  # fmt: skip
    things = [Thing("bar", colour, box) for colour, box in zip(colours, spots, strict=True)]
    letters: list[str] = []
    if lettered:
        letters = some(rng, "ABCDEFGHKLMNPRSTUXYZ", count)
        for letter, box in zip(letters, spots, strict=True):
            scale = 2 if large else 1
            at = ((box[0] + box[2] - draw.text_width(letter, scale)) // 2, where[3] + 2)
            things += write(image, at, letter, "black", scale)
    sayings = _about_bars(rng, colours, values, sideways)
    for letter, value, colour in some(rng, list(zip(letters, values, colours, strict=False)), 1):
        sayings += [
            ask(rng, "lettered bar", (f"Over the letter {letter}, how high is it?",), str(value)),
            ask(rng, "lettered color", (f"Over the letter {letter}, which color?",), colour),
            ask(rng, "bar letter", (f"Which letter is below {colour}?",), letter),
        ]
    listed = ", ".join(f"{name} {value}" for name, value in zip(colours, values, strict=True))
    return Scene(image, tuple(sayings), f"bars {listed}", tuple(things))


def _about_bars(
    rng: np.random.Generator, colours: list[str], values: list[int], sideways: bool
) -> list[Saying]:
    longest, least = max(values), min(values)
    sayings = _about_type(rng, "bar chart")
    for index in some(rng, range(len(values)), 2):
        sayings.append(
            ask(rng, "bar height", (f"How many units has {colours[index]}?",
                                    f"Height of {colours[index]} in steps?",
                                    f"Measure {colours[index]}."), str(values[index]))
        )  # fmt: skip
    sayings += [
        ask(rng, "bar count", ("How many bars?", "Count the bars."), str(len(values))),
        ask(rng, "bar way", ("Do the bars stand or lie?",), "lie" if sideways else "stand"),
        ask(rng, "bar first", (f"Name the color of the {'top' if sideways else 'left'} bar.",),
            colours[0]),
        ask(rng, "bar order", ("Name the bar colors in order.",), " ".join(colours)),
    ]  # fmt: skip
    absent = [name for name in COLOURS if name not in colours]
    sayings.append(
        agree(rng, "bar exists", ("Has any bar the color {}?",), pick(rng, colours), absent)
    )
    for word, skill, value in (("longest", "bar top", longest), ("shortest", "bar low", least)):
        if values.count(value) == 1:
            right = colours[values.index(value)]
            sayings += [
                ask(rng, skill, (f"Color of the {word} bar?", f"Find the {word} bar."), right),
                agree(rng, f"{skill} yes/no", (f"Does {{}} have the {word} bar?",), right, colours),
                choose(rng, f"{skill} letter", f"Color of the {word} bar?", right, colours),
                ask(rng, "bar extreme", (f"How many units has the {word}?",), str(value)),
            ]
    one, two = some(rng, range(len(values)), 2)
    if values[one] != values[two]:
        word = "longer" if values[one] > values[two] else "shorter"
        text = f"Next to {colours[two]}, would you say {colours[one]} is {{}}?"
        sayings.append(agree(rng, "bar pair", (text,), word, ("longer", "shorter")))
    match = pick(rng, values)
    if values.count(match) == 1:
        sayings.append(
            ask(rng, "bar with", (f"Which color measures {match} units?",),
                colours[values.index(match)])
        )  # fmt: skip
    return sayings


def curves(rng: np.random.Generator) -> Scene:
    """One to three lines with a trend each."""
    count = int(rng.integers(1, 4))
    colours = some(rng, COLOURS, count)
    names = some(rng, list(TRENDS), count)
    image = draw.canvas("white")
    draw.axes(image, (4, 2, 46, 44))
    ends: list[float] = []
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
        draw.line(image, points, colour, int(rng.integers(1, 4)))
        if chance(rng, 0.3):
            for x, y in points:
                draw.box(image, (x - 1, y - 1, x + 2, y + 2), colour)
        ends.append(heights[-1])
    sayings = _about_type(rng, "line plot")
    absent = [name for name in COLOURS if name not in colours]
    for colour, name in zip(colours, names, strict=True):
        sayings += [
            ask(
                rng, "trend", (f"Describe the course of {colour}.", f"How does {colour} go?"), name
            ),
            ask(rng, "trend of", (f"Which color shows a course that is {name}?",), colour),
            agree(rng, "trend yes/no", (f"Is the course of {colour} {{}}?",), name, list(TRENDS)),
        ]
    sayings += [
        choose(rng, "trend letter", f"The course of {colours[0]} is", names[0], list(TRENDS)),
        ask(rng, "line count", ("How many lines run across?",), str(count)),
        agree(rng, "line exists", ("Does a {} line run across?",), pick(rng, colours), absent),
    ]
    ranked = sorted(ends)
    if count > 1 and ranked[-1] - ranked[-2] > 0.15:
        highest = colours[ends.index(ranked[-1])]
        sayings.append(ask(rng, "line end", ("Which color ends highest?",), highest))
    listed = ", ".join(f"{colour} {name}" for colour, name in zip(colours, names, strict=True))
    return Scene(image, tuple(sayings), f"lines {listed}", None)


def points(rng: np.random.Generator) -> Scene:
    """A cloud of points, rising, falling or without order."""
    colour, course = pick(rng, COLOURS), pick(rng, ("rising", "falling", "random"))
    image = draw.canvas("white")
    draw.axes(image, (4, 2, 46, 44))
    big = int(rng.integers(2, 4))
    for _ in range(int(rng.integers(10, 24))):
        across = float(rng.random())
        level = {"rising": across, "falling": 1 - across, "random": float(rng.random())}[course]
        level = min(1.0, max(0.0, level + float(rng.normal(0, 0.06))))
        x, y = 6 + round(36 * across), 41 - round(36 * level)
        draw.box(image, (x, y, x + big, y + big), colour)
    sayings = [
        *_about_type(rng, "scatter plot"),
        ask(rng, "cloud color", ("Color of the dots?",), colour),
        ask(rng, "cloud", ("How do the dots run?", "Describe the cloud."), course),
        choose(rng, "cloud letter", "The dots run", course, ("rising", "falling", "random")),
    ]
    return Scene(image, tuple(sayings), f"scatter plot, {colour} dots, {course}", None)


def slices(rng: np.random.Generator) -> Scene:
    """A pie with two to four slices."""
    count = int(rng.integers(2, 5))
    colours = some(rng, COLOURS, count)
    shares = rng.dirichlet(np.full(count, 3.0)) * 0.7 + 0.3 / count
    image = draw.canvas("white")
    pen = ImageDraw.Draw(image)
    start = float(rng.uniform(0, 360))
    inset = int(rng.integers(2, 7))
    edge = draw.rgb("black") if chance(rng, 0.5) else None
    for colour, share in zip(colours, shares, strict=True):
        end = start + 360 * float(share)
        fill = draw.rgb(colour)
        pen.pieslice((inset, inset, 47 - inset, 47 - inset), start, end, fill=fill, outline=edge)
        start = end
    order = [colours[int(index)] for index in np.argsort(-shares)]
    ranked = sorted((float(share) for share in shares), reverse=True)
    absent = [name for name in COLOURS if name not in colours]
    sayings = [
        *_about_type(rng, "pie chart"),
        ask(rng, "slice count", ("How many slices?",), str(count)),
        agree(rng, "slice exists", ("Has any slice the color {}?",), colours[0], absent),
    ]
    if ranked[0] - ranked[1] > 0.08:
        sayings.append(ask(rng, "slice top", ("Color of the widest slice?",), order[0]))
    if ranked[-2] - ranked[-1] > 0.08:
        sayings.append(ask(rng, "slice low", ("Color of the thinnest slice?",), order[-1]))
    return Scene(image, tuple(sayings), "pie chart, " + ", ".join(order), None)


def series(rng: np.random.Generator) -> Scene:
    """One row of data in one colour, drawn as a line, bars or dots; or a field of shades."""
    colour = pick(rng, COLOURS)
    sort = pick(rng, TYPES)
    name = pick(rng, [name for name in TRENDS if name not in ("flat", "waves")])
    image = draw.canvas("white")
    where = (int(rng.integers(3, 8)), int(rng.integers(2, 6)), 46, int(rng.integers(42, 46)))
    count = int(rng.integers(5, 8))
    across = np.linspace(0, 1, count)
    heights = np.interp(across, np.linspace(0, 1, 5), TRENDS[name])
    heights = np.clip(heights + rng.uniform(-0.06, 0.06, count), 0.06, 1.0)
    if sort == "heat map":
        side = 42 // count
        for row, column in np.ndindex(count, count):
            tone = draw.mix(colour, "white", float(rng.uniform(0.0, 0.85)))
            x, y = 3 + column * side, 3 + row * side
            draw.box(image, (x, y, x + side, y + side), tone)
    elif sort == "pie chart":
        pen, start, sizes = ImageDraw.Draw(image), float(rng.uniform(0, 360)), heights[:4]
        for index, size in enumerate(sizes):
            end = start + 360 * float(size) / float(sizes.sum())
            tone = draw.mix(colour, "white", (0.0, 0.5, 0.25, 0.75)[index])
            pen.pieslice((4, 4, 44, 44), start, end, fill=tone, outline=draw.rgb("black"))
            start = end
    else:
        draw.axes(image, where)
        wide, high = where[2] - where[0] - 5, where[3] - where[1] - 3
        dots = [
            (round(where[0] + 2 + wide * float(x)), round(where[3] - 2 - high * float(y)))
            for x, y in zip(across, heights, strict=True)
        ]
        if sort == "bar chart":
            steps = [float(height) for height in heights]
            draw.bars(image, where, steps, [colour] * count, int(rng.integers(1, 4)))
        elif sort == "line plot":
            draw.line(image, dots, colour, int(rng.integers(1, 4)))
        else:
            half = int(rng.integers(1, 3))
            for x, y in dots:
                draw.box(image, (x - half, y - half, x + half + 1, y + half + 1), colour)
    sayings = [
        *_about_type(rng, sort),
        ask(rng, "series color", ("Color that the plot uses?", "Name the plot's color."), colour),
        choose(rng, "series color letter", "Color that the plot uses:", colour, COLOURS),
    ]
    caption = f"{sort}, {colour}"
    if sort not in ("heat map", "pie chart"):
        caption += f", {name}"
        sayings += [
            ask(rng, "series", ("Describe the course.", "How does it go?"), name),
            choose(rng, "series letter", "The course is", name, list(TRENDS)),
            agree(rng, "series yes/no", ("Is the course {}?",), name, list(TRENDS)),
        ]
    return Scene(image, tuple(sayings), caption, None)
