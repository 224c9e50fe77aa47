"""Pictures of things: one drawn large in some rendition, or several, to count, find and compare."""

from __future__ import annotations

from collections import Counter

import numpy as np
from PIL import Image

from fcit.benchmark import draw
from fcit.benchmark.generic.facts import FACTS, GROUPS
from fcit.benchmark.generic.scene import (
    Saying,
    Scene,
    Thing,
    agree,
    ask,
    chance,
    choose,
    coordinates,
    pick,
    plural,
    region,
    some,
)
from fcit.benchmark.icons import SOLIDS

NAMES = tuple(name for name in (*draw.SHAPES, *draw.ICONS) if name not in SOLIDS)
HUES = (*draw.HUES, "brown", "gray")
REGIONS = tuple(
    region((16 * x, 16 * y, 16 * x + 16, 16 * y + 16)) for y in range(3) for x in range(3)
)


def ground(rng: np.random.Generator, colour: str) -> str:
    """A ground on which `colour` stands out."""
    if chance(rng, 0.6):
        return "white"
    return pick(rng, [name for name in ("black", "gray", "yellow", "cyan", "white", "brown",
                                        "pink", "green", "purple") if name != colour])  # fmt: skip


def portrait(rng: np.random.Generator) -> Scene:
    """One thing in one of many renditions."""
    name, colour = pick(rng, NAMES), pick(rng, (*HUES, "black"))
    behind = ground(rng, colour)
    style = pick(rng, draw.STYLES) if chance(rng, 0.75) else "filled"
    size = int(rng.integers(18, 47))
    image = draw.canvas(behind)
    tinted = chance(rng, 0.3)
    if tinted:
        image = draw.ground(rng)
    at = (int(rng.integers(0, 49 - size)), int(rng.integers(0, 49 - size)))
    box = draw.put(image, draw.sprite(name, size, colour, style, chance(rng, 0.3)), at)
    if chance(rng, 0.3):
        image = draw.noise(rng, image, float(rng.uniform(5, 45)))
    negative = chance(rng, 0.12)
    if negative:
        image = draw.inverted(image)
    sayings = [
        ask(rng, "name", _NAME, name),
        agree(
            rng, "name yes/no", ("Does this look like a {}?", "Could this be a {}?"), name, NAMES
        ),
        choose(rng, "name letter", pick(rng, ("The drawing is of a", "Name it.")), name, NAMES),
        ask(rng, "spell name", ("Spell the name of what is drawn.",), " ".join(name)),
        ask(rng, "style", ("In what manner is it drawn?", "Describe the drawing style."), style),
        ask(rng, "box", ("Give the box around the drawing.",), coordinates(box)),
        ask(rng, "region", ("Where on the sheet is it?",), region(box)),
    ]
    if not negative:
        sayings += [
            ask(rng, "color", ("Tell its color.", "Painted in which color?"), colour),
            ask(rng, "color and name", ("Say color and name.",), f"{colour} {name}"),
        ]
    if not negative and not tinted:
        sayings.append(
            ask(rng, "ground", ("Color behind it?", "Name the background color."), behind)
        )
    sayings += facts(rng, name)
    caption = f"a {style} {name}" if negative else f"a {style} {colour} {name}"
    if not negative and not tinted:
        caption += f" on {behind}"
    things = (Thing(name, "none" if negative else colour, box),)
    return Scene(image, tuple(sayings), caption, things)


_NAME = ("Name the thing drawn here.", "This drawing shows a", "Say what you see.", "Object name?")


def facts(rng: np.random.Generator, name: str) -> list[Saying]:
    """What is commonly known about a thing."""
    found = [
        ask(rng, "fact", (wording,), answer)
        for wording, answers in FACTS.items()
        for answer in (answers.get(name),)
        if answer
    ]
    group = next((group for group, names in GROUPS.items() if name in names), None)
    if group:
        found.append(ask(rng, "group", ("Animal, vehicle, plant, shape or tool?",), group))
        found.append(
            agree(rng, "group yes/no", ("Does it count as a kind of {}?",), group, list(GROUPS))
        )
    return found


def crowd(rng: np.random.Generator) -> Scene:
    """One to nine things, flat or solid, of a few kinds and colours."""
    solids = chance(rng, 0.3)
    names = some(rng, SOLIDS if solids else NAMES, int(rng.integers(1, 5)))
    colours = some(rng, HUES, int(rng.integers(1, 5)))
    pairs = [(pick(rng, names), pick(rng, colours)) for _ in range(int(rng.integers(1, 6)))]
    count = int(rng.integers(1, 10)) if chance(rng, 0.55) else int(rng.integers(1, 5))
    chosen = [pick(rng, pairs) for _ in range(count)]
    behind = "white" if chance(rng, 0.6) else pick(rng, ("black", "gray", "white"))
    image = draw.canvas(behind) if behind not in colours else draw.ground(rng)
    if solids and chance(rng, 0.7):
        image = draw.canvas(draw.mix("gray", "white", float(rng.uniform(0.2, 0.8))))
    things = tuple(
        Thing(name, colour, _show(image, name, size, colour, at))
        for (name, colour), (at, size) in zip(chosen, _spots(rng, count), strict=True)
    )
    things = tuple(sorted(things, key=lambda thing: (thing.box[3] // 16, thing.box[0])))
    if chance(rng, 0.1):
        image = draw.noise(rng, image, float(rng.uniform(4, 20)))
    return Scene(image, tuple(_about(rng, things)), _listing(rng, things), things)


def _show(
    image: Image.Image, name: str, size: int, colour: str, at: tuple[int, int]
) -> tuple[int, int, int, int]:
    return draw.put(image, draw.sprite(name, size, colour, flip=bool((at[0] + at[1]) % 2)), at)


def _spots(rng: np.random.Generator, count: int) -> list[tuple[tuple[int, int], int]]:
    """Corners and sizes: anywhere for a few things, else in the cells of a grid."""
    if count <= 6 and chance(rng, 0.6):
        least, most = ((14, 24) if count <= 3 else (11, 18)) if count <= 4 else (10, 13)
        sizes = [int(size) for size in rng.integers(least, most, size=count)]
        return list(zip(draw.place(rng, sizes), sizes, strict=True))
    across = pick(rng, (3, 4)) if count <= 9 else 4
    cell = 48 // across
    spots: list[tuple[tuple[int, int], int]] = []
    for index in some(rng, range(across * across), count):
        size = int(rng.integers(max(9, cell - 5), cell + 1))
        left, top = index % across * cell, index // across * cell
        x, y = rng.integers(0, cell - size + 1, size=2)
        spots.append(((left + int(x), top + int(y)), size))
    if chance(rng, 0.3):
        spots.sort(key=lambda spot: (spot[0][1] // cell, spot[0][0]))
    return spots


def _listing(rng: np.random.Generator, things: tuple[Thing, ...]) -> str:
    if chance(rng, 0.5):
        return ", ".join(f"{thing.colour} {thing.kind}" for thing in things)
    return ", ".join(f"{region(thing.box)} {thing.colour} {thing.kind}" for thing in things)


def _about(rng: np.random.Generator, things: tuple[Thing, ...]) -> list[Saying]:
    kinds = Counter(thing.kind for thing in things)
    tones = Counter(thing.colour for thing in things)
    pool = SOLIDS if things[0].kind in SOLIDS else NAMES
    name, colour = pick(rng, list(kinds)), pick(rng, list(tones))
    many = plural(name)
    sayings = [
        ask(rng, "count all", ("Count everything in view.", "Total number of things?",
                               "How many items altogether?"), str(len(things))),
        ask(rng, "count kind", (f"Count the {many}.", f"Number of {many}?",
                                f"How many {many} can you find?"), str(kinds[name])),
        ask(rng, "count color", (f"Count what is {colour}.", f"Number of {colour} things?",
                                 f"How many are painted {colour}?"), str(tones[colour])),
        ask(rng, "kinds", ("How many different kinds appear?",), str(len(kinds))),
        ask(rng, "colors", ("How many different colors appear?",), str(len(tones))),
    ]  # fmt: skip
    absent = pick(rng, pool)
    sayings.append(ask(rng, "count maybe", (f"Count any {plural(absent)}.",), str(kinds[absent])))
    if len(kinds) > 1:
        one, two = some(rng, list(kinds), 2)
        sayings.append(
            ask(rng, "count two", (f"{plural(one)} and {plural(two)} together, how many?",
                                   f"Count both {plural(one)} and {plural(two)}."),
                str(kinds[one] + kinds[two]))
        )  # fmt: skip
        first, *others = kinds.most_common()
        if first[1] > others[0][1]:
            sayings.append(ask(rng, "most", ("Which kind comes up most often?",), first[0]))
    full = Counter((thing.kind, thing.colour) for thing in things)
    pair = pick(rng, list(full))
    sayings.append(
        ask(rng, "count pair", (f"Count each {pair[1]} {pair[0]}.",
                                f"Number of {pair[1]} {plural(pair[0])}?"), str(full[pair]))
    )  # fmt: skip
    other = (pick(rng, list(kinds)), pick(rng, HUES))
    asked = pick(rng, (pair, other))
    sayings.append(
        ask(rng, "exists", (f"Can you see a {asked[1]} {asked[0]}?",
                            f"Does a {asked[1]} {asked[0]} appear?"),
            "yes" if full[asked] else "no")
    )  # fmt: skip
    sayings += _places(rng, things, kinds, tones, full, pool)
    return sayings


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
    spots = Counter(region(thing.box) for thing in things)
    for thing in some(rng, single, 2):
        called = f"{thing.colour} {thing.kind}"
        sayings += [
            ask(rng, "region", (f"Where is the {called}?", f"Locate the {called} in words."),
                region(thing.box)),
            ask(rng, "box", (f"Give the box around the {called}.", f"Frame the {called}.",
                             f"Corners of the {called}?"), coordinates(thing.box)),
            ask(rng, "at box", (f"What lies inside {coordinates(thing.box)}?",), called),
        ]  # fmt: skip
    lone = [thing for thing in things if kinds[thing.kind] == 1]
    for thing in some(rng, lone, 1):
        sayings += [
            ask(rng, "color of", (f"Tell the color of the {thing.kind}.",
                                  f"The {thing.kind} is painted"), thing.colour),
            choose(rng, "color letter", f"The {thing.kind} has color", thing.colour, HUES),
            ask(rng, "box of kind", (f"Give the box around the {thing.kind}.",
                                     f"Frame the {thing.kind}."), coordinates(thing.box)),
        ]  # fmt: skip
    alone = [thing for thing in things if tones[thing.colour] == 1]
    for thing in some(rng, alone, 1):
        sayings += [
            ask(rng, "kind of", (f"Name the {thing.colour} one.", f"The {thing.colour} thing is a"),
                thing.kind),
            choose(rng, "kind letter", f"The {thing.colour} thing is a", thing.kind, pool),
        ]  # fmt: skip
    spot = pick(rng, REGIONS)
    if spots[spot] == 1:
        shown = next(thing for thing in things if region(thing.box) == spot)
        sayings.append(
            ask(rng, "at region", (f"Name the thing at the {spot}.", f"At the {spot} you see a"),
                f"{shown.colour} {shown.kind}")
        )  # fmt: skip
    if len(single) > 1:
        one, two = some(rng, single, 2)
        gap = one.box[0] + one.box[2] - two.box[0] - two.box[2]
        if abs(gap) > 12:
            side = "left" if gap < 0 else "right"
            sayings.append(
                agree(rng, "side", (f"Does the {one.colour} {one.kind} sit to the {{}} of the "
                                    f"{two.colour} {two.kind}?",), side, ("left", "right"))
            )  # fmt: skip
    return sayings
