"""Small exercises in words alone: copying, comparing, spelling and adding, which no picture helps."""

from __future__ import annotations

import numpy as np

from fcit.benchmark.generic.facts import TITLES
from fcit.benchmark.generic.scene import Saying, agree, ask, chance, choose, pick, some

_NUMBERS = tuple(str(number) for number in range(10))


def drill(rng: np.random.Generator) -> Saying:
    """One exercise; its skill begins with "drill"."""
    return pick(rng, (_letter, _letter, _same, _among, _spell, _join, _join, _add))(rng)


def _letter(rng: np.random.Generator) -> Saying:
    pool = TITLES if chance(rng, 0.7) else _NUMBERS
    word, *others = some(rng, pool, 6)
    return choose(rng, "drill letter", f"Find {word}:", word, others)


def _same(rng: np.random.Generator) -> Saying:
    one, two = some(rng, TITLES, 2)
    return agree(rng, "drill same", (f"Is {one} the same word as {{}}?",), one, (two,))


def _among(rng: np.random.Generator) -> Saying:
    words = some(rng, TITLES, int(rng.integers(2, 5)))
    inside = chance(rng, 0.5)
    asked = pick(rng, words[1:] if inside else TITLES)
    listed = ", ".join(words)
    return Saying("drill among", f"Is {asked} in {listed}?", "yes" if asked in words else "no")


def _spell(rng: np.random.Generator) -> Saying:
    word = pick(rng, TITLES)
    return ask(rng, "drill spell", (f"Spell {word}.",), " ".join(word))


def _join(rng: np.random.Generator) -> Saying:
    word = pick(rng, TITLES)
    parts = word if chance(rng, 0.5) else word.upper()
    return ask(rng, "drill join", (f"Join {' '.join(parts)}.",), word)


def _add(rng: np.random.Generator) -> Saying:
    one, two = (int(value) for value in rng.integers(0, 10, size=2))
    if chance(rng, 0.5):
        return ask(rng, "drill add", (f"{one} plus {two}?",), str(one + two))
    high, low = max(one, two), min(one, two)
    return ask(rng, "drill take", (f"{high} less {low}?",), str(high - low))
