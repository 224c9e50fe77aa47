"""What the generic mixture is made of: a picture, what can be said about it, and what is where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from fcit.benchmark.draw import COLOURS, ICONS, SHAPES, SIZE, Box
from fcit.benchmark.icons import SOLIDS

T = TypeVar("T")
PATCH = 8
_THINGS = tuple(dict.fromkeys((*SHAPES, *ICONS, *SOLIDS)))
KINDS = ("empty", *_THINGS, "bar", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
"""What a patch may show, for the dense training aid."""
TONES = ("none", *COLOURS)
"""Which colour a patch may show, for the same."""


@dataclass(frozen=True)
class Saying:
    """One question about a picture, the skill it asks for, and its answer."""

    skill: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class Thing:
    """Something drawn: its kind (one of KINDS), its colour, and its box in pixels."""

    kind: str
    colour: str
    box: Box


@dataclass(frozen=True)
class Scene:
    """A picture, questions about it, its caption, and what it shows where (None: not said)."""

    image: Image.Image
    sayings: tuple[Saying, ...]
    caption: str
    things: tuple[Thing, ...] | None


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of `options`, each as likely."""
    return options[int(rng.integers(len(options)))]


def some(rng: np.random.Generator, options: Sequence[T], count: int) -> list[T]:
    """`count` different ones of `options`, in random order."""
    return [options[int(index)] for index in rng.permutation(len(options))[:count]]


def chance(rng: np.random.Generator, likely: float) -> bool:
    """True with probability `likely`."""
    return bool(rng.random() < likely)


def ask(rng: np.random.Generator, skill: str, wordings: Sequence[str], answer: str) -> Saying:
    """A question in one of several wordings."""
    return Saying(skill, pick(rng, wordings), answer)


_LEADS = ("Pick one:", "Which fits?", "Select the right letter.", "Choose the letter.", "")
_MARKS = ("{}) {}", "({}) {}", "{}. {}", "{}: {}")


def choose(
    rng: np.random.Generator, skill: str, question: str, right: str, wrong: Sequence[str]
) -> Saying:
    """The same question with two to four lettered options; the answer is the right one's letter."""
    options = [
        right,
        *some(rng, [word for word in wrong if word != right], int(rng.integers(1, 4))),
    ]
    order = [options[int(index)] for index in rng.permutation(len(options))]
    mark = pick(rng, _MARKS)
    joint = pick(rng, ("\n", " ", ", "))
    listed = joint.join(
        mark.format(letter, text) for letter, text in zip("ABCD", order, strict=False)
    )
    text = " ".join(part for part in (question, listed, pick(rng, _LEADS)) if part)
    return Saying(skill, text, "ABCD"[order.index(right)])


def agree(
    rng: np.random.Generator, skill: str, wordings: Sequence[str], right: str, wrong: Sequence[str]
) -> Saying:
    """A yes-or-no question; each wording has one place for the right or a wrong word."""
    truth = chance(rng, 0.5)
    word = right if truth else pick(rng, [word for word in wrong if word != right])
    return Saying(skill, pick(rng, wordings).format(word), "yes" if truth else "no")


def coordinates(box: Box) -> str:
    """A box as four shares of the picture's side, two decimals each."""
    return "[" + ",".join(f"{value / SIZE:.2f}" for value in box) + "]"


def region(box: Box) -> str:
    """Which ninth of the picture the middle of a box is in."""
    across = min(2, int((box[0] + box[2]) / 2 / SIZE * 3))
    down = min(2, int((box[1] + box[3]) / 2 / SIZE * 3))
    if (across, down) == (1, 1):
        return "center"
    high, wide = ("top", "middle", "bottom")[down], ("left", "center", "right")[across]
    return f"{high} {wide}"


def patches(things: Sequence[Thing] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the 36 patches show, row by row: kinds [36], colours [36] and extents [36, 4].

    Kinds and colours are numbers of KINDS and TONES, -1 where nothing is said. An extent is how far
    a thing reaches left, up, right and down of the middle of a patch it covers, in patches.
    """
    side = SIZE // PATCH
    kinds = np.full((side, side), -1 if things is None else 0, dtype=np.int16)
    tones = kinds.copy()
    best = np.full((side, side), 0.15 * PATCH * PATCH)
    spans = np.zeros((side, side, 4), dtype=np.float32)
    edge = np.arange(side) * PATCH
    middle = edge + PATCH / 2
    for thing in things or ():
        left, top, right, bottom = thing.box
        wide = np.clip(np.minimum(edge + PATCH, right) - np.maximum(edge, left), 0, None)
        high = np.clip(np.minimum(edge + PATCH, bottom) - np.maximum(edge, top), 0, None)
        cover = high[:, None] * wide[None, :]
        won = cover > best
        best[won] = cover[won]
        kinds[won] = _KIND[thing.kind]
        tones[won] = _TONE[thing.colour]
        reach = np.zeros_like(spans)
        reach[..., 0], reach[..., 2] = middle[None, :] - left, right - middle[None, :]
        reach[..., 1], reach[..., 3] = middle[:, None] - top, bottom - middle[:, None]
        spans[won] = reach[won] / PATCH
    return kinds.ravel(), tones.ravel(), spans.reshape(-1, 4)


_KIND: Mapping[str, int] = {name: number for number, name in enumerate(KINDS)}
_TONE: Mapping[str, int] = {name: number for number, name in enumerate(TONES)}


def plural(name: str) -> str:
    """Several of a thing."""
    odd = {
        "fish": "fish", "bus": "buses", "cross": "crosses", "person": "persons",
    }  # fmt: skip
    return odd.get(name, f"{name}s")
