"""CLEVR-Math in miniature: a scene of shaded solids, and a number after adding or taking away."""

from __future__ import annotations

import numpy as np

from fcit.benchmark import draw
from fcit.benchmark.icons import SOLIDS
from fcit.benchmark.mini.drawn import WORD, Drawn, ask, between, pick, plural, some

NAME = "CLEVR-Math"

_HUES = ("red", "green", "blue", "yellow", "purple", "cyan", "gray")
_SUBTRACT = (
    "Subtract all {group}. How many objects are left?",
    "Subtract all {group}. How many objects remain?",
    "If you subtract all {group}, how many objects are left?",
)
_ADD = (
    "Add {number} {group}. How many objects exist?",
    "Add {number} {group}. How many objects are there then?",
    "If you add {number} {group}, how many objects exist?",
)


def sample(rng: np.random.Generator) -> Drawn:
    """Two groups, each of one colour and solid, of up to six objects in all."""
    hues, kinds = some(rng, _HUES, 2), some(rng, SOLIDS, 2)
    subtract = rng.random() < 0.6
    if subtract:
        counts = [between(rng, 1, 3), between(rng, 0, 4)]
    else:
        counts = [between(rng, 0, 3), between(rng, 1, 2)]
    image = draw.canvas(draw.mix("gray", "white", 0.55 + 0.1 * between(rng, 0, 3)))
    size = between(rng, 12, 14) if sum(counts) < 5 else 11
    spots = draw.place(rng, [size] * sum(counts))
    look = [(hues[group], kinds[group]) for group, count in enumerate(counts) for _ in range(count)]
    for (hue, kind), spot in sorted(zip(look, spots, strict=True), key=lambda item: item[1][1]):
        draw.put(image, draw.sprite(kind, size, hue), spot)
    named = pick(rng, (f"{hues[0]} {plural(kinds[0])}", f"{hues[0]} objects", plural(kinds[0])))
    if subtract:
        return Drawn(image, ask(rng, _SUBTRACT, WORD, group=named), (str(counts[1]),))
    more = between(rng, 1, 3)
    noun = kinds[0] if more == 1 else plural(kinds[0])
    prompt = ask(rng, _ADD, WORD, number=str(more), group=f"{hues[0]} {noun}")
    return Drawn(image, prompt, (str(sum(counts) + more),))
