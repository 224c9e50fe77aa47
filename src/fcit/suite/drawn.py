"""What a generator of the mini suite hands back, and the few things all generators share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from fcit.benchmark.datasets import Split
from fcit.files import read_toml
from fcit.suite import draw

Item = TypeVar("Item")

WORD = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
CAPTION = "Generate a brief caption for the image."
YES_NO = "Please answer yes or no."
ONE_WORD = "Answer with one word."
WORD_OR_NUMBER = "Answer with a word or a number."
NUMBER = "Give only the number."


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


@dataclass(frozen=True)
class Wordings:
    """Paraphrases of one question: those of both splits, and those that only test prompts have."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]


DATA = read_toml(Path(__file__).with_name("generators.toml"))
"""What the file says, by dataset."""


def wordings(dataset: str, *topics: str) -> tuple[Wordings, ...]:
    """The wordings of a dataset's questions."""
    tables = [DATA[dataset][topic] for topic in topics]
    return tuple(Wordings(tuple(table["seen"]), tuple(table["unseen"])) for table in tables)


HOW_MANY, TAKE_AWAY, ADD = wordings("shared", "how_many", "take_away", "add")
"""Counting (IconQA, CLEVR-Math, super-CLEVR); taking a group away, and adding some (the first two)."""

VOWELS, CONSONANTS = "AEIOU", "BCDFGHJKLMNPRSTVWXYZ"


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """One of `items`, each equally likely."""
    return items[int(rng.integers(len(items)))]


def some(rng: np.random.Generator, items: Sequence[Item], count: int) -> list[Item]:
    """`count` different ones of `items`, in random order."""
    return [items[int(index)] for index in rng.permutation(len(items))[:count]]


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return int(rng.integers(low, high + 1))


def ask(rng: np.random.Generator, split: Split, wordings: Wordings, form: str, **words: str) -> str:
    """A question in one of its wordings with `words` filled in, and `form` on the lines below it.

    Every third test prompt has a wording that no training prompt has. Without `form` the question
    stands alone.
    """
    unseen = split == "test" and rng.random() < 1 / 3
    question = pick(rng, wordings.unseen if unseen else wordings.seen).format(**words)
    return f"{question}\n{form}" if form else question


def plural(noun: str) -> str:
    """The plural of a noun the suite draws."""
    irregular = {"fish": "fish"}
    ending = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return irregular.get(noun, noun + ending)


def number_of(number: int, noun: str, colour: str = "") -> str:
    """A number of things in words: "2 red cubes", "1 star"."""
    return " ".join(filter(None, (str(number), colour, noun if number == 1 else plural(noun))))


def name(rng: np.random.Generator, letters: int, first: str = "") -> str:
    """A made-up word of capitals that can be pronounced; `first` is its first letter, if given."""
    kinds = (CONSONANTS, VOWELS)
    if first:
        start = int(first in VOWELS)
    else:
        start = int(rng.random() < 0.2)
        first = pick(rng, kinds[start])
    return first + "".join(pick(rng, kinds[(start + at) % 2]) for at in range(1, letters))


def spots(rng: np.random.Generator, count: int, cell: int) -> list[tuple[draw.Point, int]]:
    """Corners and sizes of `count` things in cells of `cell` pixels (12 or 16); none touch.

    A thing is at least 11 pixels wide and keeps a pixel free towards the next cell.
    """
    across = draw.SIZE // cell
    spots: list[tuple[draw.Point, int]] = []
    for index in some(rng, range(across * across), count):
        size = between(rng, max(11, cell - 3), cell - 1)
        x, y = (between(rng, 0, cell - 1 - size) for _ in range(2))
        spots.append(((index % across * cell + x, index // across * cell + y), size))
    return spots


def grey(rng: np.random.Generator) -> Image.Image:
    """The grey ground of CLEVR-Math and super-CLEVR, in one of four shades."""
    return draw.canvas(draw.mix("gray", "white", 0.5 + 0.1 * between(rng, 0, 3)))
