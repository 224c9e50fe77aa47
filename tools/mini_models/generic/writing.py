"""Pictures of text, with one letter per patch: lines of words, single signs, numbers, and tables."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fcit.suite import draw
from fcit.suite.draw import CELL
from fcit.suite.drawn import pick, some
from tools.mini_models.generic.facts import TITLES
from tools.mini_models.generic.objects import DIGITS
from tools.mini_models.generic.scene import Saying, Scene, Thing, ask, chance, claim

INKS = ("black", "red", "blue", "green", "purple", "brown")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ROWS = draw.SIZE // CELL
"""Lines of writing on a picture, and characters on a line."""


def write(image: Image.Image, at: tuple[int, int], text: str, ink: str) -> list[Thing]:
    """Write `text` starting at grid cell `at` (column, row); returns the position of each letter."""
    found: list[Thing] = []
    x, y = at[0] * CELL, at[1] * CELL
    draw.text(image, (x, y), text, ink)
    for index, letter in enumerate(text.upper()):
        if letter.isalnum():
            left = x + index * CELL
            found.append(Thing(letter, ink, (left, y, left + CELL, y + CELL)))
    return found


def word(rng: np.random.Generator, least: int = 2, most: int = 6) -> str:
    """An invented or a known word in capitals."""
    if chance(rng, 0.15) and most > 2:
        return pick(rng, [title for title in TITLES if least <= len(title) <= most]).upper()
    return "".join(pick(rng, LETTERS) for _ in range(int(rng.integers(least, most + 1))))


def paper(rng: np.random.Generator) -> tuple[Image.Image, str, str]:
    """A sheet, an ink that contrasts with it, and the sheet's colour."""
    if chance(rng, 0.4):
        return draw.canvas("white"), pick(rng, INKS), "white"
    if chance(rng, 0.6):
        colour, dark = pick(rng, draw.HUES), chance(rng, 0.5)
        tint = draw.mix(colour, "black" if dark else "white", float(rng.uniform(0.5, 0.8)))
        return draw.canvas(tint), "white" if dark else "black", colour
    colour = pick(rng, (*draw.HUES, "black", "brown", "gray"))
    bright = colour in ("yellow", "cyan", "orange", "pink")
    return draw.canvas(colour), "black" if bright else "white", colour


def lettering(rng: np.random.Generator) -> Scene:
    """One to four lines of a word each, sometimes with a picture between them."""
    image, ink, sheet = paper(rng)
    things: list[Thing] = []
    shown = ""
    if chance(rng, 0.5):
        top, rows = int(rng.integers(1, 3)), []
        rows = [*range(top), *range(top + 2, ROWS)]
        shown = pick(rng, draw.ICONS)
        size = int(rng.integers(13, 18))
        tone = pick(rng, ("white", "yellow", "cyan")) if ink == "white" else pick(rng, INKS)
        at = (int(rng.integers(0, 49 - size)), 8 * top + int(rng.integers(0, 17 - min(16, size))))
        things.append(Thing(shown, tone, draw.put(image, draw.sprite(shown, size, tone), at)))
    else:
        rows = list(range(ROWS))
    lines = sorted(some(rng, rows, int(rng.integers(1, 5))))
    words = [word(rng, 1) for _ in lines]
    for line, text in zip(lines, words, strict=True):
        room = ROWS - len(text)
        column = room // 2 if chance(rng, 0.5) else int(rng.integers(0, room + 1))
        things += write(image, (column, line), text, ink)
    sayings = [
        ask(rng, "read all", ("Read out the writing.", "Copy."), " ".join(words)),
        ask(rng, "sheet", ("Name the color of the sheet.",), sheet),
        ask(rng, "lines", ("How many lines of writing?",), str(len(lines)), DIGITS),
    ]
    if shown:
        sayings.append(
            ask(
                rng,
                "emblem",
                ("What is pictured beside the writing?", "Picture?"),
                shown,
                draw.ICONS,
            )
        )
    named = {1: ("only",), 2: ("upper", "lower")}.get(len(words), ("first", "second", "third"))
    for text, place in zip(words, named, strict=False):
        sayings += [
            ask(rng, "read", (f"Read the {place} line.", f"The {place} line says",
                              f"{place} line?"), text),
            ask(rng, "first letter", (f"With which letter does the {place} line begin?",), text[0],
                LETTERS),
            ask(rng, "letters", (f"How many letters has the {place} line?",), str(len(text)),
                DIGITS),
        ]  # fmt: skip
    sayings.append(ask(rng, "read", ("Read the last line.", "Last line?"), words[-1]))
    for text in words:
        if len(text) > 2 and sum(other[0] == text[0] for other in words) == 1:
            sayings.append(ask(rng, "word with", (f"Copy the word that begins {text[0]}.",), text))
    one = pick(rng, words)
    other = one if chance(rng, 0.5) else word(rng, 2, 4)
    sayings.append(claim(rng, "read", (f"Can you read {other} anywhere?",), other in words))
    caption = " / ".join(words)
    return Scene(image, tuple(sayings), caption, tuple(things))


def numbers(rng: np.random.Generator) -> Scene:
    """Two numbers, one above the other."""
    image, ink, _ = paper(rng)
    limit = 10 if chance(rng, 0.8) else 100
    one, two = (int(value) for value in rng.integers(0, limit, size=2))
    rows = sorted(some(rng, range(ROWS), 2))
    things: list[Thing] = []
    for number, row in ((str(one), rows[0]), (str(two), rows[1])):
        things += write(image, (int(rng.integers(0, ROWS + 1 - len(number))), row), number, ink)
    sayings = [
        ask(rng, "number", ("Read the upper number.", "Upper number?"), str(one), DIGITS),
        ask(rng, "number", ("Read the lower number.", "Lower number?"), str(two), DIGITS),
        ask(rng, "sum", ("Add the two numbers.", "Sum?"), str(one + two)),
        ask(rng, "sum", ("What do both make in total?", "Sum?"), str(one + two)),
        ask(rng, "bigger", ("Which number is bigger?", "Maximum?"), str(max(one, two))),
        ask(rng, "lesser", ("Which number is smaller?", "Minimum?"), str(min(one, two))),
        ask(rng, "gap", ("How far apart are the numbers?", "Gap?"), str(abs(one - two))),
    ]
    return Scene(image, tuple(sayings), f"{one} above {two}", tuple(things))


def table(rng: np.random.Generator) -> Scene:
    """Two to five rows of a word and a number."""
    image = draw.canvas("white")
    rows = int(rng.integers(2, 6))
    starts = some(rng, LETTERS, rows)
    words = [letter + "".join(some(rng, LETTERS, int(rng.integers(1, 3)))) for letter in starts]
    limit = 10 if chance(rng, 0.8) else 60
    values = [int(value) for value in rng.integers(0, limit, size=rows)]
    lines = sorted(some(rng, range(ROWS), rows))
    if lines[0] > 0 and chance(rng, 0.5):
        draw.box(image, (0, 0, 48, 8 * lines[0]), draw.mix(pick(rng, draw.HUES), "white", 0.4))
    column = 4 if limit > 10 else pick(rng, (4, 5))
    start = int(rng.integers(2))
    shaded, tint = chance(rng, 0.5), draw.mix(pick(rng, draw.HUES), "white", 0.8)
    things: list[Thing] = []
    for index, (line, text, value) in enumerate(zip(lines, words, values, strict=True)):
        if shaded and index % 2:
            draw.box(image, (0, 8 * line, 48, 8 * line + 8), tint)
        things += write(image, (start, line), text, "black")
        things += write(image, (column, line), str(value), "black")
    one = int(rng.integers(rows))
    two = (one + int(rng.integers(1, rows))) % rows
    sayings: list[Saying] = []
    for index in (one, two, int(rng.integers(rows))):
        wordings = (f"Which number stands beside {words[index]}?", f"Look up {words[index]}.",
                    f"{words[index]}?", f"{words[index]}:")  # fmt: skip
        sayings.append(ask(rng, "cell", wordings, str(values[index])))
        more = int(rng.integers(1, 10))
        wordings = (f"{words[index]} and {more} more?", f"Add {more} to {words[index]}.")
        sayings.append(ask(rng, "cell more", wordings, str(values[index] + more)))
    first, second = (("first", "second", "third", "fourth", "fifth")[index] for index in (one, two))
    listed = ", ".join(f"{text} {value}" for text, value in zip(words, values, strict=True))
    sayings += [
        ask(rng, "rows", ("How many rows has the grid?",), str(rows), DIGITS),
        ask(rng, "row word", (f"Which word is on the {first} row?", f"{first} word?"), words[one]),
        ask(rng, "row number", (f"Which number is on the {first} row?", f"{first} number?"),
            str(values[one])),
        ask(rng, "table dense", ("Copy the grid.", "List all rows."), listed),
    ]  # fmt: skip
    if max(values[one], values[two]) < 10:
        low, high = sorted((values[one], values[two]))
        sayings += [
            ask(rng, "row sum", (f"Add the {first} and the {second} number.",
                                 f"{first} plus {second}?"), str(low + high)),
            ask(rng, "row gap", (f"How far apart are the {first} and the {second} number?",
                                 f"Gap of {first} and {second}?"), str(high - low)),
        ]  # fmt: skip
    if values.count(values[one]) == 1:
        wordings = (f"Which word stands beside {values[one]}?", f"{values[one]} belongs to")
        sayings.append(ask(rng, "cell word", wordings, words[one]))
    if values.count(max(values)) == 1:
        top = words[values.index(max(values))]
        sayings.append(ask(rng, "top row", ("Which word has the biggest number?",), top))
    return Scene(image, tuple(sayings), listed, tuple(things))
