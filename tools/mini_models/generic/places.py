"""Pictures of places: one or two objects on a ground under a sky."""

from __future__ import annotations

import numpy as np

from fcit.suite import draw
from fcit.suite.drawn import pick
from tools.mini_models.generic.objects import HUES, REGIONS, facts
from tools.mini_models.generic.scene import Scene, Thing, ask, chance, claim, region

GROUNDS = {
    "grass": draw.mix("green", "white", 0.3),
    "sand": (235, 205, 140),
    "snow": (235, 240, 250),
    "water": (70, 130, 220),
    "road": (95, 95, 100),
    "floor": (160, 110, 70),
    "hill": (60, 130, 60),
}
SKIES = {
    "day": (165, 215, 250),
    "night": (20, 25, 70),
    "cloudy": (190, 195, 200),
    "sunset": (250, 170, 110),
    "room": (245, 235, 205),
}
SAID = {
    "day": "by day",
    "night": "at night",
    "cloudy": "under clouds",
    "sunset": "at sunset",
    "room": "in a room",
}


def view(rng: np.random.Generator) -> Scene:
    """One or two objects in a place."""
    where, sky = pick(rng, list(GROUNDS)), pick(rng, list(SKIES))
    image = draw.canvas(SKIES[sky])
    level = int(rng.integers(26, 38))
    draw.box(image, (0, level, 48, 48), GROUNDS[where])
    if where == "road":
        for x in range(2, 48, 12):
            draw.box(image, (x, 42, x + 6, 44), "white")
    if where == "hill":
        for x in (-6, 22):
            draw.put(image, draw.sprite("circle", 34, GROUNDS["hill"]), (x, level - 8))
    if sky == "day" and chance(rng, 0.6):
        draw.put(image, draw.sprite("circle", 10, "yellow"), (int(rng.integers(0, 38)), 1))
    if sky == "night":
        draw.put(image, draw.sprite("moon", 9, "white"), (int(rng.integers(0, 38)), 1))
    if sky == "cloudy":
        for x in (3, 9, 15):
            draw.put(image, draw.sprite("circle", 9, "white"), (x + int(rng.integers(20)), 2))
    at_ground = f"{'by' if where in ('water', 'hill') else 'on'} the {where}"
    name, colour = pick(rng, draw.ICONS), pick(rng, HUES)
    size = int(rng.integers(18, 29))
    x = int(rng.integers(0, 49 - size))
    box = draw.put(
        image, draw.sprite(name, size, colour), (x, min(48 - size, level + 6 - size // 2))
    )
    things = [Thing(name, colour, box)]
    caption = f"A {colour} {name} {at_ground} {SAID[sky]}."
    second = None
    if chance(rng, 0.5):
        free = (0, x) if x > 47 - x - size else (x + size, 48)
        room = free[1] - free[0]
        if room >= 12:
            second, tone = pick(rng, draw.ICONS), pick(rng, HUES)
            wide = min(room, int(rng.integers(12, 18)))
            left = free[0] + int(rng.integers(0, room - wide + 1))
            item = draw.sprite(second, wide, tone)
            things.append(Thing(second, tone, draw.put(image, item, (left, 48 - wide - 1))))
            caption = f"A {colour} {name} near a {tone} {second} {at_ground} {SAID[sky]}."
    shown = tuple(thing.kind for thing in things)
    other = pick(rng, draw.ICONS)
    sayings = [
        ask(rng, "view thing", ("Name the biggest thing here.", "What stands out?"), name,
            draw.ICONS),
        ask(rng, "view color", ("Tell the color of the biggest thing.",), colour, HUES),
        ask(rng, "view ground", ("What is the ground made of?", "Ground?"), where, tuple(GROUNDS)),
        ask(rng, "view sky", ("Describe the sky.", "Time or weather above?"), sky, tuple(SKIES)),
        ask(rng, "caption", ("Sum up the view.", "Tell it in one line.", "Caption:"), caption),
        ask(rng, "region", (f"Where is the {name}?",), region(box), REGIONS),
        claim(rng, "view thing", (f"Do you notice a {other}?",), False)
        if other not in shown
        else claim(rng, "view thing", (f"Do you notice a {pick(rng, shown)}?",), True),
    ]  # fmt: skip
    if second != name:
        for one in things:
            sayings.append(
                ask(rng, "color of", (f"Tell the color of the {one.kind}.",), one.colour, HUES)
            )
    if second is None:
        sayings += facts(rng, name)
    return Scene(image, tuple(sayings), caption, tuple(things))
