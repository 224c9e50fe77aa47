"""The generic mixture that the mini model is pretrained on: random scenes with captions and questions.

It shares its drawings with the mini suite, as real images share a world, but none of its tasks and
wordings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fcit.suite.drawn import pick
from tools.mini_models.generic import objects, places, plots, writing
from tools.mini_models.generic.drills import drill
from tools.mini_models.generic.facts import OPENINGS, WORDS
from tools.mini_models.generic.scene import (
    KINDS,
    TONES,
    Saying,
    Scene,
    Seen,
    Thing,
    choose,
    doubt,
    patches,
)

__all__ = [
    "FAMILIES",
    "KINDS",
    "OPENINGS",
    "TONES",
    "WORDS",
    "Saying",
    "Scene",
    "Seen",
    "Thing",
    "choose",
    "doubt",
    "drill",
    "patches",
    "sample",
]

FAMILIES: dict[str, tuple[float, Callable[[np.random.Generator], Scene]]] = {
    "portrait": (0.15, objects.portrait),
    "crowd": (0.28, objects.crowd),
    "view": (0.08, places.view),
    "lettering": (0.12, writing.lettering),
    "numbers": (0.05, writing.numbers),
    "table": (0.11, writing.table),
    "bars": (0.13, plots.bars),
    "curves": (0.02, plots.curves),
    "slices": (0.02, plots.slices),
    "series": (0.04, plots.series),
}
"""How often each kind of picture occurs, and what draws it."""

_LISTINGS = {
    "crowd": ("List what is where.", "List all."),
    "numbers": ("Copy the numbers.",),
    "bars": ("Describe the bars in order.", "List bars and units."),
    "curves": ("Describe all the lines.",),
    "slices": ("Describe the slices by size.",),
    "series": ("Sort, color and course?",),
}


def sample(rng: np.random.Generator, family: str | None = None) -> Scene:
    """A random scene. In some families the last question asks for a list of everything. The same stream
    gives the same bytes."""
    if family is None:
        names = list(FAMILIES)
        shares = np.array([share for share, _ in FAMILIES.values()])
        family = names[int(rng.choice(len(names), p=shares / shares.sum()))]
    scene = FAMILIES[family][1](rng)
    if family not in _LISTINGS:
        return scene
    dense = Saying(f"{family} dense", pick(rng, _LISTINGS[family]), scene.caption)
    return Scene(scene.image, (*scene.sayings, dense), scene.caption, scene.things)
