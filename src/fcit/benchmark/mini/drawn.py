"""What a generator of the mini suite hands back, and the few words all generators share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

Item = TypeVar("Item")

WORD = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
CAPTION = "Generate a brief caption for the image."


@dataclass(frozen=True)
class Drawn:
    """One drawn sample: SIZE x SIZE RGB image, prompt with its format line, and right answers.

    `answers` holds one answer, or five references of a caption. `more` holds later (human,
    assistant) turns; only training records keep them.
    """

    image: Image.Image
    prompt: str
    answers: tuple[str, ...]
    more: tuple[tuple[str, str], ...] = ()


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """One of `items`, each equally likely."""
    return items[int(rng.integers(len(items)))]


def some(rng: np.random.Generator, items: Sequence[Item], count: int) -> list[Item]:
    """`count` different ones of `items`, in random order."""
    return [items[int(index)] for index in rng.permutation(len(items))[:count]]


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return int(rng.integers(low, high + 1))


def ask(rng: np.random.Generator, templates: Sequence[str], form: str, **words: str) -> str:
    """One of the question templates with `words` filled in, and the format line below it."""
    return f"{pick(rng, templates).format(**words)}\n{form}"


def plural(noun: str) -> str:
    """The plural of a noun the suite draws."""
    irregular = {"fish": "fish"}
    ending = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return irregular.get(noun, noun + ending)
