"""Drawing for the mini suite: small, high-contrast RGB images, the same bytes for one seed.

Sprites (shapes and icons) are lists of parts in unit coordinates, drawn four times too large and
reduced, so that ten pixels are enough to recognise them. Text is a bitmap font of our own.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fcit.files import read_toml

SIZE = 48
"""Every image is SIZE x SIZE pixels."""

Colour = tuple[int, int, int]
Point = tuple[int, int]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are excluded."""

_DRAWN = read_toml(Path(__file__).with_name("icons.toml"))
COLOURS: dict[str, Colour] = {name: tuple(levels) for name, levels in _DRAWN["colours"].items()}
HUES = ("red", "green", "blue", "yellow", "purple", "cyan", "orange", "pink")
"""Colours that no two people confuse on a white or black ground."""

GROUNDS: tuple[Colour, ...] = (
    (255, 255, 255), (240, 240, 240), (255, 246, 224), (228, 240, 255), (232, 250, 230),
    (252, 232, 240), (222, 222, 228), (255, 252, 205),
)  # fmt: skip
"""Light grounds on which every hue stands out."""

PARTS: dict[str, list[list[Any]]] = _DRAWN["shapes"] | _DRAWN["solids"] | _DRAWN["icons"]
"""Every sprite's parts, by name."""
SHAPES, SOLIDS, ICONS = (tuple(_DRAWN[group]) for group in ("shapes", "solids", "icons"))
"""Names of plain geometric shapes, of what looks three-dimensional, and of objects."""

CELL = 8
"""Pixels from one character to the next, across and down."""
_FONT = Path(__file__).with_name("font.txt").read_text(encoding="utf-8")
GLYPHS: dict[str, list[str]] = {
    name: rows for name, *rows in (line.split() for line in _FONT.splitlines())
} | {" ": []}
"""A bitmap font drawn for this project: a character to its seven rows of `X` (ink) and `.`, five to a
row; the cell's remaining rim keeps letters apart."""

STYLES = ("filled", "outline", "hatched", "dotted", "pixelated")
"""Renditions of a sprite, all readable from about 16 pixels; small ones should stay filled."""

_OVER = 4


def canvas(ground: str | Colour = "white") -> Image.Image:
    """An empty RGB image of SIZE x SIZE pixels."""
    return Image.new("RGB", (SIZE, SIZE), rgb(ground))


def ground(rng: np.random.Generator) -> Image.Image:
    """An empty image with one of the light grounds."""
    return canvas(GROUNDS[int(rng.integers(len(GROUNDS)))])


def rgb(colour: str | Colour) -> Colour:
    """A colour by name, or itself."""
    return COLOURS[colour] if isinstance(colour, str) else colour


def mix(colour: str | Colour, other: str | Colour, share: float) -> Colour:
    """`colour` with `share` (0 to 1) of `other` mixed in."""
    pairs = zip(rgb(colour), rgb(other), strict=True)
    red, green, blue = (round(a + (b - a) * share) for a, b in pairs)
    return red, green, blue


@lru_cache(maxsize=4096)
def sprite(
    name: str, size: int, colour: str | Colour, style: str = "filled", flip: bool = False
) -> Image.Image:
    """A shape or icon as an RGBA image of `size` x `size` pixels; `colour` is its main colour.

    `style` is one of STYLES. The image is shared between calls: paste it, never draw on it.
    """
    wide = size * _OVER
    image = Image.new("RGBA", (wide, wide), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    main = rgb(colour)
    tones = {
        "main": main,
        "dark": mix(main, "black", 0.55),
        "light": mix(main, "white", 0.75),
        "ink": COLOURS["black"],
        "none": None,
    }
    for tone, kind, *numbers in PARTS[name]:
        fill = (*tones[tone], 255) if tones[tone] else (0, 0, 0, 0)
        at = [value * (wide - 1) for value in numbers]
        if kind == "ellipse":
            draw.ellipse(at[:4], fill=fill)
        elif kind == "box":
            draw.rectangle(at[:4], fill=fill)
        elif kind == "line":
            draw.line(at[1:], fill=fill, width=max(1, round(at[0])), joint="curve")
        else:
            draw.polygon(list(zip(at[0::2], at[1::2], strict=True)), fill=fill)
    image = _restyled(image, style, main)
    image = image.reduce(_OVER)
    if style == "pixelated":
        image = image.reduce(3).resize((size, size), Image.Resampling.NEAREST)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image


def _restyled(image: Image.Image, style: str, main: Colour) -> Image.Image:
    """The oversized sprite with its inside emptied, hatched or dotted; the outline stays."""
    if style in ("filled", "pixelated"):
        return image
    pixels = np.asarray(image).copy()
    inside = pixels[..., 3] > 0
    reach = _OVER + _OVER // 2
    # A pixel is an edge when any neighbour at `reach` is outside, or of another tone.
    edge = np.zeros_like(inside)
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)))
    high, wide = inside.shape
    for down, right in ((0, reach), (2 * reach, reach), (reach, 0), (reach, 2 * reach)):
        other = padded[down : down + high, right : right + wide]
        edge |= (other != pixels).any(axis=2)
    rows, columns = np.indices(inside.shape)
    if style == "hatched":
        keep = (rows + columns) % (4 * _OVER) < 1.5 * _OVER
    elif style == "dotted":
        keep = ((rows % (3 * _OVER)) < 1.5 * _OVER) & ((columns % (3 * _OVER)) < 1.5 * _OVER)
    else:
        keep = np.zeros_like(inside)
    shown = inside & (edge | keep)
    pixels[..., :3] = main
    pixels[..., 3] = np.where(shown, 255, 0)
    return Image.fromarray(pixels)


def put(image: Image.Image, item: Image.Image, at: Point) -> Box:
    """Paste a sprite with its top left corner at `at`; returns the box of what it covers."""
    image.paste(item, at, item)
    left, top, right, bottom = item.getbbox() or (0, 0, *item.size)
    return at[0] + left, at[1] + top, at[0] + right, at[1] + bottom


def place(
    rng: np.random.Generator,
    sizes: Sequence[int],
    within: Box = (0, 0, SIZE, SIZE),
    gap: int = 1,
) -> list[Point]:
    """Random top left corners for squares of `sizes` pixels that do not touch each other.

    Boxes keep `gap` pixels apart. Where chance finds no room the layout is drawn anew; one that
    cannot fit at all is our own mistake and fails an assertion.
    """
    left, top, right, bottom = within
    for _ in range(200):
        spots: list[Point] = []
        for index, size in enumerate(sizes):
            for _ in range(40):
                x = int(rng.integers(left, right - size + 1))
                y = int(rng.integers(top, bottom - size + 1))
                if all(
                    x + size + gap <= a
                    or a + other + gap <= x
                    or y + size + gap <= b
                    or b + other + gap <= y
                    for (a, b), other in zip(spots, sizes[:index], strict=True)
                ):
                    spots.append((x, y))
                    break
            else:
                break
        if len(spots) == len(sizes):
            return spots
    raise AssertionError(f"no room for squares of {list(sizes)} pixels in {within}")


def jitter(rng: np.random.Generator, at: Point) -> Point:
    """`at` moved by up to a pixel each way."""
    x, y = rng.integers(-1, 2, size=2)
    return at[0] + int(x), at[1] + int(y)


def noise(rng: np.random.Generator, image: Image.Image, amount: float) -> Image.Image:
    """The image with Gaussian noise of standard deviation `amount` (0 to 255 scale)."""
    pixels = np.asarray(image, dtype=np.float64)
    speckle = rng.normal(0.0, amount, size=pixels.shape[:2])[..., None]
    return Image.fromarray(np.clip(np.rint(pixels + speckle), 0, 255).astype(np.uint8))


def inverted(image: Image.Image) -> Image.Image:
    """The photographic negative."""
    return Image.fromarray(255 - np.asarray(image))


def text(image: Image.Image, at: Point, words: str, colour: str | Colour = "black") -> None:
    """Write one line in the bitmap font (capitals, digits, a few marks), a cell a character."""
    draw, tone = ImageDraw.Draw(image), rgb(colour)
    for index, letter in enumerate(words.upper()):
        x, y = at[0] + CELL * index + 1, at[1]
        dots = [
            (x + right, y + down)
            for down, row in enumerate(GLYPHS[letter])
            for right, bit in enumerate(row)
            if bit == "X"
        ]
        draw.point(dots, fill=tone)


def box(image: Image.Image, where: Box, colour: str | Colour) -> None:
    """A filled rectangle."""
    left, top, right, bottom = where
    ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), fill=rgb(colour))


def line(
    image: Image.Image, points: Sequence[Point], colour: str | Colour = "black", width: int = 1
) -> None:
    """A line through `points`."""
    ImageDraw.Draw(image).line(list(points), fill=rgb(colour), width=width, joint="curve")


def axes(image: Image.Image, where: Box, colour: str | Colour = "black") -> None:
    """A left and a bottom axis around the plot area `where`."""
    left, top, right, bottom = where
    line(image, [(left - 1, top), (left - 1, bottom), (right, bottom)], colour)


def bars(
    image: Image.Image,
    where: Box,
    heights: Sequence[float],
    colours: Sequence[str | Colour],
    gap: int = 2,
) -> list[Box]:
    """Upright bars with `heights` from 0 to 1 of the plot area, evenly spaced; returns their boxes."""
    left, top, right, bottom = where
    step = (right - left) // len(heights)
    drawn: list[Box] = []
    for index, (height, colour) in enumerate(zip(heights, colours, strict=True)):
        start = left + index * step + gap // 2
        high = max(1, round(height * (bottom - top)))
        spot = (start, bottom - high, start + step - gap, bottom)
        box(image, spot, colour)
        drawn.append(spot)
    return drawn
