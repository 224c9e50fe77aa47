"""OCR-VQA in miniature: a book cover with a title, a picture and an author."""

from __future__ import annotations

import numpy as np

from fcit.benchmark import draw
from fcit.benchmark.mini.drawn import WORD, Drawn, ask, between, pick

NAME = "OCR-VQA"

TITLES = (
    "moon", "river", "gold", "storm", "fire", "ship", "road", "lake", "rose", "snow", "wolf",
    "stone", "light", "dust", "home", "iron", "west", "salt",
)  # fmt: skip
AUTHORS = ("ann", "tom", "lee", "kim", "joe", "eva", "max", "ida", "ben", "sue")
GENRES = {
    "heart": "romance",
    "key": "mystery",
    "cup": "cooking",
    "plane": "travel",
    "tree": "nature",
    "ball": "sports",
    "clock": "history",
}
_TITLE = (
    "What is the title of this book?",
    "What is the name of this book?",
    "Which title is printed on this book?",
)
_AUTHOR = ("Who wrote this book?", "Who is the author of this book?")
_GENRE = (
    "What type of book is this?",
    "What is the genre of this book?",
    "What kind of book is this?",
)


def sample(rng: np.random.Generator) -> Drawn:
    """Title above, author below, ten pixels high; the picture between tells the genre."""
    title, author, picture = pick(rng, TITLES), pick(rng, AUTHORS), pick(rng, tuple(GENRES))
    dark = rng.random() < 0.4
    hue = pick(rng, draw.HUES)
    cover = draw.mix(hue, "black", 0.65) if dark else draw.mix(hue, "white", 0.7)
    ink = "white" if dark else "black"
    image = draw.canvas(cover)
    shift = between(rng, -1, 1)
    draw.centred(image, 3 + shift, title, ink, 2)
    size = between(rng, 14, 17)
    at = (between(rng, 4, 44 - size), 15 + between(rng, 0, 17 - size))
    tone = pick(rng, ("yellow", "cyan")) if dark else pick(rng, ("blue", "red", "black"))
    draw.put(image, draw.sprite(picture, size, tone), at)
    draw.centred(image, 35 + shift, author, ink, 2)
    questions, answer = pick(rng, ((_TITLE, title), (_AUTHOR, author), (_GENRE, GENRES[picture])))
    return Drawn(image, ask(rng, questions, WORD), (answer,))
