"""What a generator of the mini suite hands back, and the few things all generators share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from fcit.benchmark.datasets import Split
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


def wordings(text: str) -> Wordings:
    """Wordings, one a line; those that only test prompts have begin with "test: "."""
    lines = [line.strip() for line in text.strip().splitlines()]
    only = "test: "
    return Wordings(
        tuple(line for line in lines if not line.startswith(only)),
        tuple(line.removeprefix(only) for line in lines if line.startswith(only)),
    )


HOW_MANY = wordings("""
    How many {group} are there?
    How many {group} are there in the picture?
    What number of {group} are shown here?
    Look closely. How many {group} do you see?
    Here is a picture. How many {group} are in it?
    Can you say how many {group} are shown?
    test: How many {group} does the picture show?
    test: Please tell how many {group} there are.
    test: What is the number of {group} in the picture?
""")
"""Counting: IconQA, CLEVR-Math and super-CLEVR share it."""
TAKE_AWAY = wordings("""
    Subtract all {group}. How many {things} are left?
    If all {group} are taken away, how many {things} are left?
    Take away all {group}. How many {things} remain?
    Look closely. How many {things} remain after you subtract all {group}?
    How many {things} are left when all {group} are gone?
    test: How many {things} are there after all {group} are taken away?
    test: Take the {group} away. What number of {things} remain?
    test: If you subtract the {group}, how many {things} are left?
""")
"""Taking a group away: IconQA and CLEVR-Math share it."""
ADD = wordings("""
    Add {more}. How many {things} exist?
    Add {more}. How many {things} are there then?
    If you add {more}, how many {things} are there?
    Look closely. How many {things} are there after you add {more}?
    How many {things} are there once {more} joined them?
    test: Suppose you add {more}. How many {things} are there?
    test: How many {things} exist after you add {more}?
    test: Add {more} to the picture. How many {things} do you see?
""")
"""Adding some: IconQA and CLEVR-Math share it."""

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
