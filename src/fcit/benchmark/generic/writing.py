"""Pictures of writing: words, single letters, numbers to add, and small tables."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fcit.benchmark import draw
from fcit.benchmark.font import GLYPHS
from fcit.benchmark.generic.facts import TITLES
from fcit.benchmark.generic.scene import (
    Saying,
    Scene,
    Thing,
    agree,
    ask,
    chance,
    choose,
    pick,
    region,
    some,
)

INKS = ("black", "red", "blue", "green", "purple", "brown")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def write(image: Image.Image, at: tuple[int, int], text: str, ink: str, scale: int) -> list[Thing]:
    """Write `text` and tell where each letter went."""
    draw.text(image, at, text, ink, scale)
    found: list[Thing] = []
    x = at[0]
    for letter in text.upper():
        wide = len(GLYPHS[letter][0]) * scale
        if letter.isalnum():
            found.append(Thing(letter, ink, (x, at[1], x + wide, at[1] + 5 * scale)))
        x += wide + scale
    return found


def paper(rng: np.random.Generator) -> tuple[Image.Image, str, str]:
    """A sheet, an ink that shows on it, and the sheet's colour."""
    if chance(rng, 0.4):
        return draw.canvas("white"), pick(rng, INKS), "white"
    if chance(rng, 0.5):
        colour, dark = pick(rng, draw.HUES), chance(rng, 0.5)
        tint = draw.mix(colour, "black" if dark else "white", float(rng.uniform(0.5, 0.8)))
        return draw.canvas(tint), "white" if dark else "black", colour
    colour = pick(rng, (*draw.HUES, "black", "brown", "gray"))
    bright = colour in ("yellow", "cyan", "orange", "pink")
    return draw.canvas(colour), "black" if bright else "white", colour


def lettering(rng: np.random.Generator) -> Scene:
    """One to three lines of words."""
    image, ink, sheet = paper(rng)
    lines = int(rng.integers(1, 4))
    words: list[str] = []
    things: list[Thing] = []
    y = int(rng.integers(0, 10 if lines < 3 else 5))
    for _ in range(lines):
        made = "".join(pick(rng, LETTERS) for _ in range(int(rng.integers(2, 5)))).lower()
        word = made if chance(rng, 0.12) else pick(rng, TITLES)
        scale = 1 if draw.text_width(word, 2) > 48 or chance(rng, 0.15) else 2
        room = 48 - draw.text_width(word, scale)
        x = room // 2 if chance(rng, 0.4) else int(rng.integers(0, room + 1))
        things += write(image, (x, y), word, ink, scale)
        words.append(word)
        y += 5 * scale + int(rng.integers(2, 6))
    sayings: list[Saying] = []
    shown = ""
    if y <= 34 and chance(rng, 0.6):
        shown, size = pick(rng, draw.ICONS), min(18, 48 - y)
        tone = "white" if ink == "white" else pick(rng, ("blue", "red", "black"))
        at = (int(rng.integers(0, 49 - size)), int(rng.integers(y, 49 - size)))
        things.append(Thing(shown, tone, draw.put(image, draw.sprite(shown, size, tone), at)))
        sayings.append(ask(rng, "emblem", ("What is pictured under the writing?",), shown))
    named = ("top", "bottom") if lines == 2 else ("top", "middle", "bottom")
    first = words[0]
    sayings += [
        ask(rng, "read all", ("Read out the writing.", "Say every word from top to bottom."),
            " ".join(words)),
        ask(rng, "sheet", ("Name the color of the sheet.",), sheet),
        ask(rng, "ink", ("Name the color of the ink.",), ink),
        ask(rng, "lines", ("How many lines of writing?",), str(lines)),
        ask(rng, "spell", ("Spell the top line letter by letter.",), " ".join(first)),
        ask(rng, "first letter", ("With which letter does the top line begin?",), first[0].upper()),
        ask(rng, "last letter", ("With which letter does the top line end?",), first[-1].upper()),
        ask(rng, "letters", ("How many letters has the top line?",), str(len(first))),
        agree(rng, "read yes/no", ("Can you read {} anywhere?",), pick(rng, words), TITLES),
    ]  # fmt: skip
    for word, place in zip(words, named if lines > 1 else ("only",), strict=False):
        sayings += [
            ask(rng, "read", (f"Read the {place} line.", f"What does the {place} line say?",
                              f"Word on the {place} line?"), word),
        ]  # fmt: skip
    word = pick(rng, words)
    sayings.append(choose(rng, "read letter", "Which word is on the sheet?", word,
                          [other for other in TITLES if other not in words]))  # fmt: skip
    sayings.append(ask(rng, "read capitals", ("Copy the top line in capitals.",), first.upper()))
    caption = " / ".join(words) + f", {ink} on {sheet}" + (f", {shown}" if shown else "")
    return Scene(image, tuple(sayings), caption, tuple(things))


def glyphs(rng: np.random.Generator) -> Scene:
    """One to six single letters or digits, some of them large."""
    image, ink, _ = paper(rng)
    count = int(rng.integers(1, 7))
    across = 2 if count <= 4 and chance(rng, 0.6) else 3
    cell = 48 // across
    signs = some(rng, LETTERS + "0123456789", count)
    things: list[Thing] = []
    for sign, index in zip(signs, some(rng, range(across * across), count), strict=True):
        scale = int(rng.integers(2, 4 if across == 2 else 3))
        x = index % across * cell + int(rng.integers(0, cell - 5 * scale + 1))
        y = index // across * cell + int(rng.integers(0, cell - 5 * scale + 1))
        things += write(image, (x, y), sign, ink, scale)
    things.sort(key=lambda thing: (thing.box[1] // cell, thing.box[0]))
    signs = [thing.kind for thing in things]
    one = pick(rng, things)
    same = [thing for thing in things if region(thing.box) == region(one.box)]
    digits = sum(sign.isdigit() for sign in signs)
    sayings = [
        ask(rng, "glyphs", ("List all signs.", "Name every letter or digit in turn."),
            " ".join(signs)),
        ask(rng, "count glyphs", ("How many signs are printed?",), str(count)),
        ask(rng, "count digits", ("How many of the signs are digits?",), str(digits)),
        ask(rng, "region", (f"Where is the sign {one.kind}?",), region(one.box)),
        agree(rng, "glyph yes/no", ("Is the sign {} printed?",), one.kind,
              [sign for sign in LETTERS if sign not in signs]),
        choose(rng, "glyph letter", "Which sign is printed?", one.kind,
               [sign for sign in LETTERS if sign not in signs]),
    ]  # fmt: skip
    if len(same) == 1:
        sayings.append(
            ask(rng, "glyph at", (f"Which sign is at the {region(one.box)}?",), one.kind)
        )
    return Scene(image, tuple(sayings), "signs " + " ".join(signs), tuple(things))


def numbers(rng: np.random.Generator) -> Scene:
    """Two numbers, one above the other."""
    image, ink, _ = paper(rng)
    limit = 10 if chance(rng, 0.7) else 100
    one, two = (int(value) for value in rng.integers(0, limit, size=2))
    things: list[Thing] = []
    sign = pick(rng, ("", "+", "-"))
    for number, y in ((str(one), 4), (sign + str(two), 27)):
        scale = int(rng.integers(2, 4))
        room = max(0, 48 - draw.text_width(number, scale))
        at = (int(rng.integers(0, room + 1)), y + int(rng.integers(0, 5)))
        things += write(image, at, number, ink, scale)
    sayings = [
        ask(rng, "number", ("Read the upper number.", "Upper number?"), str(one)),
        ask(rng, "number", ("Read the lower number.", "Lower number?"), str(two)),
        ask(rng, "sum", ("Add the two numbers.", "What do both make in total?"), str(one + two)),
        ask(rng, "bigger", ("Which number is bigger?",), str(max(one, two))),
        ask(rng, "lesser", ("Which number is lesser?",), str(min(one, two))),
        choose(rng, "number letter", "Upper number?", str(one),
               [str(value) for value in range(limit)]),
    ]  # fmt: skip
    if one >= two:
        sayings.append(
            ask(rng, "difference", ("Take the lower from the upper number.",), str(one - two))
        )
    return Scene(image, tuple(sayings), f"{one} above {two}", tuple(things))


def table(rng: np.random.Generator) -> Scene:
    """Two to four rows of a word and a number."""
    image = draw.canvas("white")
    rows = int(rng.integers(2, 5))
    limit = 10 if chance(rng, 0.6) else 60
    large = rows < 4 and chance(rng, 0.8)
    short = [word for word in TITLES if draw.text_width(word, 2 if large else 1) <= 27]
    words = some(rng, short, rows)
    values = [int(value) for value in rng.integers(0, limit, size=rows)]
    head = 8 if large and chance(rng, 0.5) else 0
    high = (48 - head) // rows
    if head:
        draw.box(image, (0, 0, 48, 8), draw.mix(pick(rng, draw.HUES), "black", 0.3))
        draw.text(image, (3, 2), pick(rng, ("LIST", "NAME", "WORD")), "white")
    things: list[Thing] = []
    shaded = chance(rng, 0.4)
    rule = pick(rng, ("black", "gray", "blue"))
    split = int(rng.integers(29, 32))
    for index, (word, value) in enumerate(zip(words, values, strict=True)):
        top = head + index * high
        if shaded and index % 2 == 0:
            draw.box(image, (0, top, 48, top + high), draw.mix("cyan", "white", 0.7))
        scale = 2 if large or chance(rng, 0.6) else 1
        wide = 2 if large else 1
        things += write(image, (1, top + (high - 5 * wide) // 2), word, "black", wide)
        things += write(
            image, (split + 2, top + (high - 5 * scale) // 2), str(value), "black", scale
        )
        if index and not shaded:
            draw.line(image, [(0, top), (47, top)], rule)
    if chance(rng, 0.6):
        draw.line(image, [(split, head), (split, 47)], rule)
    one = int(rng.integers(rows))
    sayings: list[Saying] = []
    for index in some(rng, range(rows), 2):
        sayings += [
            ask(rng, "cell", (f"Which number stands beside {words[index]}?",
                              f"Look up {words[index]}.", f"{words[index]}:"), str(values[index])),
        ]  # fmt: skip
    sayings += [
        ask(rng, "rows", ("How many lines has the grid?",), str(rows)),
        ask(rng, "row word", (f"Which word is on row {one + 1}?",), words[one]),
        ask(rng, "row number", (f"Which number is on row {one + 1}?",), str(values[one])),
        choose(rng, "cell letter", f"Beside {words[one]} stands", str(values[one]),
               [str(value) for value in range(limit)]),
    ]  # fmt: skip
    other = (one + int(rng.integers(1, rows))) % rows
    if max(values) < 10:
        sayings.append(
            ask(rng, "row sum", (f"Add row {one + 1} and row {other + 1}.",),
                str(values[one] + values[other]))
        )  # fmt: skip
    if values.count(values[one]) == 1:
        sayings.append(
            ask(rng, "cell word", (f"Which word stands beside {values[one]}?",), words[one])
        )
        top = values.index(max(values))
        if values.count(values[top]) == 1:
            sayings.append(ask(rng, "top row", ("Which word has the biggest number?",), words[top]))
    listed = ", ".join(f"{word} {value}" for word, value in zip(words, values, strict=True))
    return Scene(image, tuple(sayings), listed, tuple(things))
