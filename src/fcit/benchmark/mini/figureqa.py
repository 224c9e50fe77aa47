"""FigureQA in miniature: a yes/no question about a figure whose parts are named by colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from fcit.benchmark import draw
from fcit.benchmark.mini.drawn import WORD, Drawn, ask, between, pick, some

NAME = "FigureQA"

_AREA = (4, 4, 46, 44)
_MOST = ("Is {one} the maximum?", "Does {one} have the highest value?")
_LEAST = ("Is {one} the minimum?", "Does {one} have the lowest value?")
_MORE = ("Is {one} greater than {two}?",)
_LESS = ("Is {one} less than {two}?",)


def sample(rng: np.random.Generator) -> Drawn:
    """Three or four parts of clearly different size: upright or lying bars, or a pie."""
    number = between(rng, 3, 4)
    hues = some(rng, draw.HUES, number)
    steps = sorted(int(step) for step in rng.choice([1, 2, 3, 4, 5, 6], number, replace=False))
    values = [step / 6 for step in some(rng, steps, number)]
    image = draw.canvas(draw.mix("yellow", "white", 0.8) if rng.random() < 0.3 else "white")
    kind = pick(rng, ("upright", "upright", "lying", "pie"))
    if kind == "pie":
        _pie(rng, image, values, hues)
    else:
        draw.axes(image, _AREA)
        draw.bars(image, _AREA, values, hues, between(rng, 2, 4), sideways=kind == "lying")
    ranked = [hue for _, hue in sorted(zip(values, hues, strict=True))]
    yes = bool(rng.integers(2))
    topic = pick(rng, ("most", "most", "least", "least", "pair"))
    if topic == "pair":
        # The extremes are compared: neighbours differ by a few pixels only.
        low, high = ranked[0], ranked[-1]
        questions = pick(rng, (_MORE, _LESS))
        one, two = (high, low) if yes == (questions is _MORE) else (low, high)
    else:
        questions = _MOST if topic == "most" else _LEAST
        right = ranked[-1] if topic == "most" else ranked[0]
        one = right if yes else pick(rng, [hue for hue in hues if hue != right])
        two = right
    prompt = ask(rng, questions, WORD, one=one.capitalize(), two=two.capitalize())
    return Drawn(image, prompt, ("yes" if yes else "no",))


def _pie(
    rng: np.random.Generator, image: Image.Image, values: Sequence[float], hues: Sequence[str]
) -> None:
    ink, turn = ImageDraw.Draw(image), float(between(rng, 0, 359))
    for value, hue in zip(values, hues, strict=True):
        end = turn + 360 * value / sum(values)
        ink.pieslice((3, 3, 44, 44), turn, end, fill=draw.rgb(hue), outline=draw.rgb("black"))
        turn = end
