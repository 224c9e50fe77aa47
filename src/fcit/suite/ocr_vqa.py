"""OCR-VQA in miniature: a book cover with a title, a picture and an author.

Kept: the original's questions (title, author, genre), answers that must be read off the cover, as
the words are made up, and a genre that only the picture tells. Lost: lower case and fonts, titles of
several words, the questions whose answer is a year, an edition or yes or no.
"""

import numpy as np

from fcit.benchmark.datasets import Split
from fcit.suite import draw
from fcit.suite.draw import CELL
from fcit.suite.drawn import DATA, WORD, Drawn, ask, between, name, pick, wordings

NAME = "OCR-VQA"

GENRES: dict[str, str] = DATA[NAME]["genres"]
"""By the picture on the cover."""
TITLE, AUTHOR, GENRE = wordings(NAME, "title", "author", "genre")


def sample(rng: np.random.Generator, split: Split) -> Drawn:
    """Title above and author below in capitals, one to a cell; the picture stands between them."""
    title, author = name(rng, between(rng, 3, 6)), name(rng, between(rng, 3, 5))
    picture = pick(rng, tuple(GENRES))
    dark = rng.random() < 0.4
    hue = pick(rng, draw.HUES)
    image = draw.canvas(draw.mix(hue, "black", 0.65) if dark else draw.mix(hue, "white", 0.7))
    ink = "white" if dark else "black"
    above, below = between(rng, 0, 1), between(rng, 4, 5)
    for line, words in ((above, title), (below, author)):
        column = (draw.SIZE // CELL - len(words)) // 2
        draw.text(image, (CELL * column, CELL * line), words, ink)
    top, bottom = CELL * (above + 1), CELL * below
    size = between(rng, 15, min(24, bottom - top))
    at = (between(rng, 2, 46 - size), between(rng, top, bottom - size))
    tone = pick(rng, ("yellow", "cyan")) if dark else pick(rng, ("blue", "red", "black"))
    draw.put(image, draw.sprite(picture, size, tone), at)
    topic, answer = pick(rng, ((TITLE, title), (AUTHOR, author), (GENRE, GENRES[picture])))
    return Drawn(image, ask(rng, split, topic, WORD), (answer,))
