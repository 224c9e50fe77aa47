"""The generic mixture the mini model is pretrained on: random scenes with captions and questions.

It shares its drawing with the mini suite, as real images share a world, but none of its tasks and
wordings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fcit.benchmark.generic import objects, places, plots, writing
from fcit.benchmark.generic.drills import drill
from fcit.benchmark.generic.facts import OPENINGS, WORDS
from fcit.benchmark.generic.scene import KINDS, TONES, Saying, Scene, Thing, patches, pick

__all__ = [
    "FAMILIES",
    "KINDS",
    "OPENINGS",
    "TONES",
    "WORDS",
    "Saying",
    "Scene",
    "Thing",
    "drill",
    "patches",
    "sample",
]

FAMILIES: dict[str, tuple[float, Callable[[np.random.Generator], Scene]]] = {
    "portrait": (0.18, objects.portrait),
    "crowd": (0.26, objects.crowd),
    "view": (0.1, places.view),
    "lettering": (0.12, writing.lettering),
    "glyphs": (0.04, writing.glyphs),
    "numbers": (0.06, writing.numbers),
    "table": (0.07, writing.table),
    "bars": (0.11, plots.bars),
    "curves": (0.04, plots.curves),
    "points": (0.015, plots.points),
    "slices": (0.015, plots.slices),
    "series": (0.05, plots.series),
}
"""How often each kind of picture occurs, and what draws it."""

_CAPTIONS = {
    "portrait": ("Describe the drawing in full.", "Full description:"),
    "crowd": ("List what is where.", "Go through the picture in order."),
    "view": ("Describe the view.", "Set down what is seen."),
    "lettering": ("Copy the sheet and its colors.",),
    "glyphs": ("Copy the signs.",),
    "numbers": ("Copy the numbers.",),
    "table": ("Copy the grid.", "List the grid row by row."),
    "bars": ("Describe the bars in order.", "List bars and units."),
    "curves": ("Describe all the lines.",),
    "points": ("Describe the dots in full.",),
    "slices": ("Describe the slices by size.",),
    "series": ("Sort, color and course?",),
}


def sample(rng: np.random.Generator, family: str | None = None) -> Scene:
    """A random scene; its last saying asks for the dense caption. Same stream, same bytes."""
    if family is None:
        names = list(FAMILIES)
        shares = np.array([share for share, _ in FAMILIES.values()])
        family = names[int(rng.choice(len(names), p=shares / shares.sum()))]
    scene = FAMILIES[family][1](rng)
    dense = Saying(f"{family} dense", pick(rng, _CAPTIONS[family]), scene.caption)
    return Scene(scene.image, (*scene.sayings, dense), scene.caption, scene.things)
