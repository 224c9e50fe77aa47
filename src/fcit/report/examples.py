"""A few test samples with their images, and what every method answered."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcit.report.group import Entry, Group
from fcit.report.read import Prediction, Run, predictions
from fcit.seeds import numpy_stream

RIGHT = 50.0
"""From which score on an answer counts as right here (graded scores are shown as numbers too)."""

_SMALL, _LARGE, _BYTES = 128, 256, 24_000


@dataclass(frozen=True)
class Box:
    """A box on the image padded to a square, in percent of its side."""

    colour: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Said:
    """One method's answer: `mark` is ✓, ✗ or a graded score."""

    label: str
    colour: str
    text: str
    right: bool
    mark: str


@dataclass(frozen=True)
class Example:
    """One test sample: `image` is a data URI, or "" with the reason in `missing`."""

    image: str
    missing: str
    prompt: str
    truth: tuple[str, ...]
    said: tuple[Said, ...]
    boxes: tuple[Box, ...]


def examples(group: Group, root: Path | None = None) -> dict[str, list[Example]]:
    """{dataset: samples}: two that the best method answered right and one wrong, where possible.

    `root` is the data folder for runs whose configuration names none.
    """
    best = _best(group)
    result: dict[str, list[Example]] = {}
    for dataset in group.datasets:
        tables = [
            (entry, {one.question_id: one for one in predictions(entry.first, dataset)})
            for entry in group.entries
        ]
        asked = next(table for entry, table in tables if entry is best)
        chosen = _choose(list(asked.values()), best.first.seed, dataset)
        if chosen:
            graded = any(one.score not in (0.0, 100.0) for one in asked.values())
            folder = _images(best.first, root)
            result[dataset] = [_example(one, tables, folder, graded) for one in chosen]
    return result


def _best(group: Group) -> Entry:
    entries = [entry for entry in group.learners or group.entries if _predicts(entry.first)]
    return max(
        entries or group.entries,
        key=lambda entry: -1.0 if entry.first.last is None else entry.first.last,
    )


def _predicts(run: Run) -> bool:
    return any(predictions(run, dataset) for dataset in run.datasets[:1])


def _choose(rows: Sequence[Prediction], seed: int, dataset: str) -> list[Prediction]:
    """Two right and one wrong, drawn with the run's seed; more of the other where one lacks."""
    stream = numpy_stream(seed, "report examples", dataset)
    order = [rows[int(at)] for at in stream.permutation(len(rows))]
    right = [one for one in order if one.score >= RIGHT]
    wrong = [one for one in order if one.score < RIGHT]
    picked = right[: max(2, 3 - len(wrong))] + wrong[: max(1, 3 - len(right))]
    return picked[:3]


def _example(
    asked: Prediction,
    tables: Sequence[tuple[Entry, dict[str, Prediction]]],
    folder: Path | None,
    graded: bool,
) -> Example:
    said: list[Said] = []
    boxes: list[Box] = []
    if truth := _box(asked.truth[0] if asked.truth else "", "currentColor"):
        boxes.append(truth)
    for entry, table in tables:
        if answer := table.get(asked.question_id):
            right = answer.score >= RIGHT
            mark = f"{answer.score:.0f}" if graded else "✓" if right else "✗"
            said.append(Said(entry.label, entry.colour, cut(answer.prediction), right, mark))
            if truth and (box := _box(answer.prediction, entry.colour)):
                boxes.append(box)
    image, missing = picture(folder, asked.image)
    shown = tuple(cut(text, 160) for text in asked.truth[:2])
    return Example(image, missing, cut(asked.prompt, 600), shown, tuple(said), tuple(boxes))


def cut(text: str, most: int = 240) -> str:
    """A text no longer than `most` characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def picture(folder: Path | None, name: str) -> tuple[str, str]:
    """An image as a data URI and "", or "" and why there is none."""
    if folder is None:
        return "", "image not shown: the run names no data folder"
    path = folder / name
    if not name or not path.resolve().is_relative_to(folder.resolve()):
        return "", "image not shown: its path leaves the data folder"
    if not path.is_file():
        return "", "image not found"
    from PIL import Image

    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            kind = Image.MIME.get(image.format or "", "")
            if max(image.size) > _SMALL or len(data) > _BYTES or kind == "":
                out = io.BytesIO()
                shown = image.convert("RGB")
                shown.thumbnail((_LARGE, _LARGE))
                shown.save(out, "JPEG", quality=80)
                data, kind = out.getvalue(), "image/jpeg"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return "", "image cannot be decoded"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}", ""


def _images(run: Run, root: Path | None) -> Path | None:
    named = str(run.setting_of("data", "root", "") or run.data)
    place = Path(named) if named else root
    return None if place is None else Path(place) / "datasets"


def _box(text: str, colour: str) -> Box | None:
    """The box an answer like "[0.1,0.2,0.5,0.9]" names, or None."""
    numbers = re.fullmatch(r"\s*\[?((?:\s*\d*\.?\d+\s*,){3}\s*\d*\.?\d+)\s*\]?\s*", text)
    if numbers is None:
        return None
    x1, y1, x2, y2 = (float(part) for part in numbers[1].split(","))
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
        return None
    parts = (100 * x1, 100 * y1, 100 * (x2 - x1), 100 * (y2 - y1))
    left, top, width, height = (round(part, 2) for part in parts)
    return Box(colour, left, top, width, height)
