"""Exercises in text only, for which no picture is needed: finding, copying, comparing, counting,
adding.

Each gives one list and asks several questions about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fcit.suite.drawn import pick, plural, some
from tools.mini_models.generic.facts import KNOWLEDGE, TITLES
from tools.mini_models.generic.objects import HUES, NAMES
from tools.mini_models.generic.scene import chance

Turns = list[tuple[str, str]]
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_POOLS: tuple[Sequence[str], ...] = (TITLES, NAMES, HUES, tuple("0123456789"))


def drill(rng: np.random.Generator) -> tuple[str, Turns]:
    """One exercise of several turns; its skill begins with "drill"."""
    make = pick(rng, (_options, _options, _pairs, _crowd, _letters, _add, _add, _known))
    return make(rng)


def _options(rng: np.random.Generator) -> tuple[str, Turns]:
    """Lettered options: the letter of a word, or the word of a letter."""
    words = some(rng, pick(rng, _POOLS), int(rng.integers(2, 6)))
    mark = pick(rng, ("{}) {}", "{}) {}", "({}) {}", "{}. {}", "{}: {}", "{} {}"))
    joint = pick(rng, ("\n", "\n", " ", ", "))
    pairs = list(zip("ABCDE", words, strict=False))
    listed = joint.join(mark.format(letter, text) for letter, text in pairs)
    asked = some(rng, pairs, min(4, len(pairs)))
    back = chance(rng, 0.25)
    turns = [(letter, text) if back else (text, letter) for letter, text in asked]
    if chance(rng, 0.5):
        turns[0] = (f"{turns[0][0]}?\n{listed}", turns[0][1])
    else:
        turns[0] = (f"{listed}\n{turns[0][0]}?", turns[0][1])
    return "drill options", turns


def _pairs(rng: np.random.Generator) -> tuple[str, Turns]:
    """A list of words with a number each: look up the word or the number."""
    count = int(rng.integers(2, 6))
    words = some(rng, pick(rng, _POOLS[:3]), count)
    values = [str(value) for value in rng.permutation(10)[:count]]
    listed = ", ".join(f"{text} {value}" for text, value in zip(words, values, strict=True))
    back = chance(rng, 0.3)
    asked = [(value, text) if back else (text, value)
             for text, value in zip(words, values, strict=True)]  # fmt: skip
    turns = some(rng, asked, min(4, count))
    turns[0] = (f"{listed}. {turns[0][0]}?", turns[0][1])
    turns.append(("most?", words[values.index(max(values))]))
    turns.append(("least?", words[values.index(min(values))]))
    return "drill pairs", turns


def _crowd(rng: np.random.Generator) -> tuple[str, Turns]:
    """A list of coloured objects: count some, name one, or answer yes or no about one."""
    names, hues = some(rng, NAMES, 3), some(rng, HUES, 3)
    things = [(pick(rng, hues), pick(rng, names)) for _ in range(int(rng.integers(1, 8)))]
    tones, kinds = (Counter(thing[place] for thing in things) for place in (0, 1))
    tone, kind = pick(rng, hues), pick(rng, names)
    turns = [
        (f"{plural(kind)}?", str(kinds[kind])),
        (f"Number of {tone} things?", str(tones[tone])),
        (f"All but {tone}?", str(len(things) - tones[tone])),
        (f"Is anything {tone}?", "yes" if tones[tone] else "no"),
        (f"A {kind}?", "yes" if kinds[kind] else "no"),
        ("Count all.", str(len(things))),
    ]
    turns += [(f"{kind}: color?", tone) for tone, kind in things if kinds[kind] == 1][:1]
    turns += [(f"{tone}: name?", kind) for tone, kind in things if tones[tone] == 1][:1]
    turns = some(rng, turns, 4)
    listed = ", ".join(f"{tone} {kind}" for tone, kind in things)
    turns[0] = (f"{listed}. {turns[0][0]}", turns[0][1])
    return "drill crowd", turns


def _known(rng: np.random.Generator) -> tuple[str, Turns]:
    """Common knowledge about objects: where they are found, their use, their material."""
    turns: Turns = []
    for _ in range(4):
        asked = pick(rng, list(KNOWLEDGE))
        name = pick(rng, list(KNOWLEDGE[asked]))
        wordings = (f"{name}: {asked}?", f"The {asked} of a {name}?", f"{asked}, {name}?")
        turns.append((pick(rng, wordings), KNOWLEDGE[asked][name]))
    return "drill known", turns


def _letters(rng: np.random.Generator) -> tuple[str, Turns]:
    """Invented words: copy one, its first letter, the word with a given first letter, whether two are
    equal."""
    words = ["".join(some(rng, _LETTERS, int(rng.integers(2, 6)))) for _ in range(3)]
    one, two = some(rng, words, 2)
    same = one if chance(rng, 0.5) else two
    turns = [
        (f"Begins {two[0]}?", two) if sum(text[0] == two[0] for text in words) == 1 else
        ("Last?", words[-1]),
        ("First?", words[0]),
        (f"Is {one} the same as {same}?", "yes" if one == same else "no"),
    ]  # fmt: skip
    turns = some(rng, turns, 3)
    turns[0] = (f"{' '.join(words)}. {turns[0][0]}", turns[0][1])
    return "drill letters", turns


def _add(rng: np.random.Generator) -> tuple[str, Turns]:
    """Small sums, differences and comparisons."""
    turns: Turns = []
    for _ in range(4):
        one, two = (int(value) for value in rng.integers(0, 10, size=2))
        high, low = max(one, two), min(one, two)
        turns.append(
            pick(
                rng,
                (
                    (f"{one} plus {two}?", str(one + two)),
                    (f"{one} and {two} more?", str(one + two)),
                    (f"Add {one} and {two}.", str(one + two)),
                    (f"{high} less {low}?", str(high - low)),
                    (f"Gap of {one} and {two}?", str(high - low)),
                    (f"Bigger: {one} or {two}?", str(high)),
                ),
            )
        )
    return "drill add", turns
