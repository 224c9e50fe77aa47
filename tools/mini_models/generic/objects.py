"""Pictures of objects: a large one in some rendition, or several to count, find and compare."""

from __future__ import annotations

from collections import Counter

import numpy as np
from PIL import Image

from fcit.suite import draw
from fcit.suite.draw import SOLIDS
from fcit.suite.drawn import pick, plural, some
from fcit.suite.grounding import written
from tools.mini_models.generic.facts import FACTS, GROUPS
from tools.mini_models.generic.scene import (
    Saying,
    Scene,
    Thing,
    ask,
    chance,
    claim,
    region,
)

NAMES = tuple(name for name in (*draw.SHAPES, *draw.ICONS) if name not in SOLIDS)
HUES = (*draw.HUES, "brown", "gray")
DIGITS = tuple(str(number) for number in range(10))
REGIONS = tuple(
    region((16 * x, 16 * y, 16 * x + 16, 16 * y + 16)) for y in range(3) for x in range(3)
)


def ground(rng: np.random.Generator, colour: str) -> str:
    """A background colour that contrasts with `colour`."""
    if chance(rng, 0.6):
        return "white"
    return pick(rng, [name for name in ("black", "gray", "yellow", "cyan", "white", "brown",
                                        "pink", "green", "purple") if name != colour])  # fmt: skip


def portrait(rng: np.random.Generator) -> Scene:
    """One object in one of many renditions, sometimes with small shapes around it."""
    name, colour = pick(rng, NAMES), pick(rng, (*HUES, "black"))
    style = pick(rng, draw.STYLES) if chance(rng, 0.6) else "filled"
    image = draw.canvas(ground(rng, colour)) if chance(rng, 0.5) else draw.ground(rng)
    small = int(rng.integers(1, 3)) if style == "filled" and chance(rng, 0.3) else 0
    size = int(rng.integers(24, 31)) if small else int(rng.integers(20, 47))
    sizes = [size, *(int(rng.integers(7, 10)) for _ in range(small))]
    at, *spots = draw.place(rng, sizes)
    box = draw.put(image, draw.sprite(name, size, colour, style, chance(rng, 0.4)), at)
    things = [Thing(name, colour, box)]
    for spot, wide in zip(spots, sizes[1:], strict=True):
        shape, tone = pick(rng, ("circle", "square", "triangle")), pick(rng, draw.HUES)
        things.append(Thing(shape, tone, draw.put(image, draw.sprite(shape, wide, tone), spot)))
    if chance(rng, 0.3):
        image = draw.noise(rng, image, float(rng.uniform(5, 35)))
    negative = chance(rng, 0.2)
    if negative:
        image = draw.inverted(image)
        things = [Thing(thing.kind, "none", thing.box) for thing in things]
    sayings = [
        ask(rng, "name", _NAME, name, NAMES),
        ask(rng, "name", _NAME, name, NAMES),
        ask(rng, "box", ("Frame the drawing.", "Box of the drawing?"), written(box)),
        ask(rng, "region", ("Where on the sheet is it?", "Place?"), region(box), REGIONS),
    ]
    if not negative:
        sayings += [
            ask(
                rng, "color", ("Tell its color.", "Painted in which color?", "Color?"), colour, HUES
            ),
            ask(rng, "color and name", ("Say color and name.",), f"{colour} {name}"),
        ]
    sayings += [*facts(rng, name), *facts(rng, name)]
    caption = f"a {name}" if negative else f"a {colour} {name}"
    return Scene(image, tuple(sayings), caption, tuple(things))


_NAME = ("Name the thing drawn here.", "This drawing shows a", "Say what you see.", "Name?")


def facts(rng: np.random.Generator, name: str) -> list[Saying]:
    """Common knowledge about an object."""
    found = [
        ask(rng, "fact", (wording,), answers[name], tuple(dict.fromkeys(answers.values())))
        for wording, answers in FACTS.items()
        if name in answers
    ]
    group = next((group for group, names in GROUPS.items() if name in names), None)
    if group:
        wordings = ("Animal, vehicle, plant, shape or tool?", "Which sort of thing?")
        found.append(ask(rng, "group", wordings, group, tuple(GROUPS)))
    return found


def crowd(rng: np.random.Generator) -> Scene:
    """One to nine objects, flat or solid, of a few kinds and colours."""
    solids = chance(rng, 0.3)
    names = some(rng, SOLIDS if solids else NAMES, int(rng.integers(1, 4)))
    colours = some(rng, HUES, int(rng.integers(1, 5)))
    pairs = [(pick(rng, names), pick(rng, colours)) for _ in range(int(rng.integers(1, 5)))]
    count = int(rng.integers(1, 9)) if chance(rng, 0.6) else int(rng.integers(1, 5))
    chosen = [pick(rng, pairs) for _ in range(count)]
    behind = "white" if chance(rng, 0.5) else pick(rng, ("black", "gray", "white"))
    image = draw.canvas(behind) if behind not in colours else draw.ground(rng)
    if chance(rng, 0.5):
        image = draw.canvas(draw.mix("gray", "white", float(rng.uniform(0.4, 0.9))))
    elif chance(rng, 0.4):
        image = draw.ground(rng)
    things = tuple(
        Thing(name, colour, _show(rng, image, name, size, colour, at))
        for (name, colour), (at, size) in zip(chosen, _spots(rng, count), strict=True)
    )
    things = tuple(sorted(things, key=lambda thing: (thing.box[3] // 16, thing.box[0])))
    return Scene(image, tuple(_about(rng, things)), _listing(rng, things), things)


def _show(
    rng: np.random.Generator,
    image: Image.Image,
    name: str,
    size: int,
    colour: str,
    at: tuple[int, int],
) -> tuple[int, int, int, int]:
    return draw.put(image, draw.sprite(name, size, colour, flip=chance(rng, 0.4)), at)


def _spots(rng: np.random.Generator, count: int) -> list[tuple[tuple[int, int], int]]:
    """Corners and sizes: anywhere for a few objects, otherwise in the cells of a grid."""
    if count <= 4 and chance(rng, 0.6):
        most = 22 if count <= 2 else 19 if count == 3 else 16
        sizes = [int(size) for size in rng.integers(11, most + 1, size=count)]
        return list(zip(draw.place(rng, sizes), sizes, strict=True))
    across = 3 if chance(rng, 0.5) else 4
    cell = 48 // across
    spots: list[tuple[tuple[int, int], int]] = []
    for index in some(rng, range(across * across), count):
        size = int(rng.integers(max(10, cell - 5), cell + 1))
        left, top = index % across * cell, index // across * cell
        x, y = rng.integers(0, cell - size + 1, size=2)
        spots.append(((left + int(x), top + int(y)), size))
    return spots


def _listing(rng: np.random.Generator, things: tuple[Thing, ...]) -> str:
    if chance(rng, 0.6):
        return ", ".join(f"{thing.colour} {thing.kind}" for thing in things)
    return ", ".join(f"{region(thing.box)} {thing.colour} {thing.kind}" for thing in things)


def _about(rng: np.random.Generator, things: tuple[Thing, ...]) -> list[Saying]:
    kinds = Counter(thing.kind for thing in things)
    tones = Counter(thing.colour for thing in things)
    full = Counter((thing.kind, thing.colour) for thing in things)
    pool = SOLIDS if things[0].kind in SOLIDS else NAMES
    name, colour, pair = pick(rng, list(kinds)), pick(rng, list(tones)), pick(rng, list(full))
    many, some_kind, some_tone = plural(name), pick(rng, pool), pick(rng, HUES)
    total, more = str(len(things)), int(rng.integers(1, 4))
    sayings = [
        ask(rng, "count all", ("Count everything in view.", "Total number of things?",
                               "How many items altogether?"), total, DIGITS),
        ask(rng, "count all", ("Count all.",), total),
        ask(rng, "count kind", (f"Count the {many}.", f"Number of {many}?", f"{many}?"),
            str(kinds[name]), DIGITS),
        ask(rng, "count color", (f"Count what is {colour}.", f"Number of {colour} things?",
                                 f"How many are painted {colour}?"), str(tones[colour]), DIGITS),
        ask(rng, "count not", (f"Count all but the {many}.", f"All without {many}?"),
            str(len(things) - kinds[name]), DIGITS),
        ask(rng, "count not", (f"Count all that is not {colour}.", f"All but {colour}?"),
            str(len(things) - tones[colour]), DIGITS),
        ask(rng, "count pair", (f"Count each {pair[1]} {pair[0]}.",
                                f"Number of {pair[1]} {plural(pair[0])}?"), str(full[pair]), DIGITS),
        ask(rng, "count more", (f"{many} and {more} more?", f"Count the {many} and add {more}."),
            str(kinds[name] + more)),
        ask(rng, "count maybe", (f"Count any {plural(some_kind)}.", f"{plural(some_kind)}?"),
            str(kinds[some_kind])),
        ask(rng, "kinds", ("How many different kinds appear?",), str(len(kinds))),
        ask(rng, "colors", ("How many different colors appear?",), str(len(tones))),
    ]  # fmt: skip
    asked = pick(rng, (pair, (name, some_tone)))
    sayings += [
        claim(rng, "exists", (f"Can you see a {asked[1]} {asked[0]}?",
                              f"Does a {asked[1]} {asked[0]} appear?"), full[asked] > 0),
        claim(rng, "exists", (f"Can you see a {some_kind}?",) if chance(rng, 0.5)
              else (f"Is anything {some_tone}?",), False)
        if not kinds[some_kind] and not tones[some_tone]
        else claim(rng, "exists", (f"Can you see a {name}?", f"Is anything {colour}?"), True),
    ]  # fmt: skip
    return sayings + _places(rng, things, kinds, tones, full, pool)


def _places(
    rng: np.random.Generator,
    things: tuple[Thing, ...],
    kinds: Counter[str],
    tones: Counter[str],
    full: Counter[tuple[str, str]],
    pool: tuple[str, ...],
) -> list[Saying]:
    sayings: list[Saying] = []
    single = [thing for thing in things if full[thing.kind, thing.colour] == 1]
    for thing in some(rng, single, 2):
        called = f"{thing.colour} {thing.kind}"
        sayings += [
            ask(rng, "region", (f"Where is the {called}?", f"Locate the {called} in words."),
                region(thing.box), REGIONS),
            ask(rng, "box", (f"Box around the {called}.", f"Frame the {called}.",
                             f"Corners of the {called}?"), written(thing.box)),
        ]  # fmt: skip
    for thing in some(rng, [thing for thing in things if kinds[thing.kind] == 1], 1):
        wordings = (f"Tell the color of the {thing.kind}.", f"The {thing.kind} is painted",
                    f"{thing.kind}: color?")  # fmt: skip
        sayings += [
            ask(rng, "color of", wordings, thing.colour, HUES),
            ask(rng, "color of", wordings, thing.colour, HUES),
            ask(rng, "box", (f"Frame the {thing.kind}.",), written(thing.box)),
        ]
    for thing in some(rng, [thing for thing in things if tones[thing.colour] == 1], 1):
        wordings = (f"Name the {thing.colour} one.", f"The {thing.colour} thing is a",
                    f"{thing.colour}: name?")  # fmt: skip
        sayings += [ask(rng, "kind of", wordings, thing.kind, pool) for _ in range(2)]
    if len(things) > 1:
        sayings.append(_extreme(rng, things, pool))
    if len(single) > 1:
        one, two = some(rng, single, 2)
        gap = one.box[0] + one.box[2] - two.box[0] - two.box[2]
        if abs(gap) > 12:
            side = pick(rng, ("left", "right"))
            text = f"Does the {one.colour} {one.kind} sit {side} of the {two.colour} {two.kind}?"
            sayings.append(claim(rng, "side", (text,), (gap < 0) == (side == "left")))
    return sayings


def _extreme(rng: np.random.Generator, things: tuple[Thing, ...], pool: tuple[str, ...]) -> Saying:
    """The object that is farthest to one side."""
    side = int(rng.integers(4))
    keyed = sorted(things, key=lambda thing: thing.box[side % 2] + thing.box[side % 2 + 2])
    word = ("leftmost", "topmost", "rightmost", "lowest")[side]
    found = keyed[0] if side < 2 else keyed[-1]
    return ask(rng, "extreme", (f"Name the {word} thing.", f"{word}: name?"), found.kind, pool)
