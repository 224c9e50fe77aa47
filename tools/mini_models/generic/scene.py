"""A scene of the generic mixture: a picture, questions about it, and the positions of its objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fcit.suite.draw import COLOURS, ICONS, SHAPES, SIZE, SOLIDS, Box
from fcit.suite.drawn import pick, some

PATCH = 8
_THINGS = tuple(dict.fromkeys((*SHAPES, *ICONS, *SOLIDS)))
KINDS = (
    "empty", *_THINGS, "bar", "line", "dots", "slice", "cell",
    *"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
)  # fmt: skip
"""What a patch may show, for the dense training aid."""
TONES = ("none", *COLOURS)
"""Which colour a patch may show, for the same."""


@dataclass(frozen=True)
class Saying:
    """A question about a picture, the skill it needs, its answer, and other possible answers.

    `pool` supplies the wrong options of the same question with lettered options or as a yes/no
    question.
    """

    skill: str
    prompt: str
    answer: str
    pool: tuple[str, ...] = ()


@dataclass(frozen=True)
class Thing:
    """A drawn object: its kind (one of KINDS), its colour, and its box in pixels.

    A `part` is a piece of something larger (a line, a pie) and has no middle of its own.
    """

    kind: str
    colour: str
    box: Box
    part: bool = False


@dataclass(frozen=True)
class Scene:
    """A picture, questions about it, its caption, and its objects."""

    image: Image.Image
    sayings: tuple[Saying, ...]
    caption: str
    things: tuple[Thing, ...]


def chance(rng: np.random.Generator, likely: float) -> bool:
    """True with probability `likely`."""
    return bool(rng.random() < likely)


def ask(
    rng: np.random.Generator,
    skill: str,
    wordings: Sequence[str],
    answer: str,
    pool: Sequence[str] = (),
) -> Saying:
    """A question in one of several wordings."""
    return Saying(skill, pick(rng, wordings), answer, tuple(pool))


_LEADS = ("Pick one:", "Which fits?", "Select the right letter.", "Choose the letter.", "", "", "")
_MARKS = ("{}) {}", "{}) {}", "({}) {}", "{}. {}", "{}: {}", "{} {}")
_DOUBTS = ("Is it {}?", "Would {} be right?", "{}, yes or no?", "Say yes if {}, else no.")


def choose(rng: np.random.Generator, saying: Saying) -> Saying:
    """The same question with two to four lettered options; the answer is the letter of the right
    one."""
    wrong = [word for word in saying.pool if word != saying.answer]
    options = [saying.answer, *some(rng, wrong, pick(rng, (1, 2, 3, 3, 3)))]
    order = some(rng, options, len(options))
    mark, joint = pick(rng, _MARKS), pick(rng, ("\n", "\n", " ", ", "))
    listed = joint.join(
        mark.format(letter, text) for letter, text in zip("ABCD", order, strict=False)
    )
    text = joint.join((saying.prompt, listed))
    lead = pick(rng, _LEADS)
    letter = "ABCD"[order.index(saying.answer)]
    return Saying(f"{saying.skill}: letter", f"{text} {lead}" if lead else text, letter)


def doubt(rng: np.random.Generator, saying: Saying) -> Saying:
    """The same question as a yes/no question: whether a word is its answer."""
    truth = chance(rng, 0.5)
    wrong = [word for word in saying.pool if word != saying.answer]
    text = pick(rng, _DOUBTS).format(saying.answer if truth else pick(rng, wrong))
    return Saying(f"{saying.skill}: yes/no", f"{saying.prompt} {text}", "yes" if truth else "no")


def claim(rng: np.random.Generator, skill: str, wordings: Sequence[str], true: bool) -> Saying:
    """A yes/no question."""
    return Saying(f"{skill}: yes/no", pick(rng, wordings), "yes" if true else "no")


def region(box: Box) -> str:
    """The ninth of the picture that contains the middle of a box."""
    across = min(2, int((box[0] + box[2]) / 2 / SIZE * 3))
    down = min(2, int((box[1] + box[3]) / 2 / SIZE * 3))
    if (across, down) == (1, 1):
        return "center"
    high, wide = ("top", "middle", "bottom")[down], ("left", "center", "right")[across]
    return f"{high} {wide}"


@dataclass(frozen=True)
class Seen:
    """Labels of the 36 patches, row by row (for an auxiliary loss).

    `kinds` and `colours` [36]: indices of KINDS and TONES. `middles` [36]: 1 where the middle of an
    object is. `boxes` [36, 4]: the box of the object there, as fractions of the side; -1 where none is.
    """

    kinds: np.ndarray
    colours: np.ndarray
    middles: np.ndarray
    boxes: np.ndarray


def patches(things: Sequence[Thing]) -> Seen:
    """The patch labels of a picture that shows `things`; of several in a patch, the one that covers
    most wins.

    The patch that contains the middle of a thing always shows that thing.
    """
    side = SIZE // PATCH
    kinds = np.zeros((side, side), dtype=np.int16)
    tones, middles = kinds.copy(), kinds.copy()
    boxes = np.full((side, side, 4), -1.0, dtype=np.float32)
    best = np.full((side, side), 0.15 * PATCH * PATCH)
    edge = np.arange(side) * PATCH
    for thing in things:
        left, top, right, bottom = thing.box
        wide = np.clip(np.minimum(edge + PATCH, right) - np.maximum(edge, left), 0, None)
        high = np.clip(np.minimum(edge + PATCH, bottom) - np.maximum(edge, top), 0, None)
        cover = high[:, None] * wide[None, :]
        if not thing.part:
            y, x = (min(side - 1, (a + b) // 2 // PATCH) for a, b in ((top, bottom), (left, right)))
            middles[y, x] = 1
            cover[y, x] = PATCH * PATCH + 1
        won = cover > best
        best[won] = cover[won]
        kinds[won] = _KIND[thing.kind]
        tones[won] = _TONE[thing.colour]
        boxes[won] = -1.0 if thing.part else np.array(thing.box) / SIZE
    return Seen(kinds.ravel(), tones.ravel(), middles.ravel(), boxes.reshape(-1, 4))


_KIND: Mapping[str, int] = {name: number for number, name in enumerate(KINDS)}
_TONE: Mapping[str, int] = {name: number for number, name in enumerate(TONES)}
