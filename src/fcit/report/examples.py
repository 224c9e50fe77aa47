"""A few test samples with their images, and what every method answered."""

import base64
import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcit.benchmark import records
from fcit.benchmark.datasets import find
from fcit.benchmark.layout import locate
from fcit.report.groups import Entry, Group, mean
from fcit.report.run_data import Prediction, RunData, predictions, questions_digest
from fcit.seeds import numpy_stream
from fcit.types import FcitError

RIGHT = 50.0
"""From which score on an answer counts as right here (graded scores are shown as numbers too)."""

_KEPT_SIDE = 128
"""Images up to this size are embedded without loss."""

_SHOWN_SIDE = 256
"""Larger images are embedded as JPEG of this size."""


@dataclass(frozen=True)
class OverlayBox:
    """A box on the image padded to a square, in percent of its side."""

    colour: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class MethodAnswer:
    """One method's answer."""

    label: str
    colour: str
    text: str
    right: bool
    mark: str
    """✓, ✗ or a graded score."""


@dataclass(frozen=True)
class Example:
    """One test sample and all methods' answers."""

    image: str
    """A data URI, or "" with the reason in `missing`."""
    missing: str
    prompt: str
    truth: tuple[str, ...]
    answers: tuple[MethodAnswer, ...]
    boxes: tuple[OverlayBox, ...]
    why: str
    """The command that explains how it was routed; "" where no run routes by identity tokens."""


def examples(group: Group, root: Path | None = None) -> dict[str, list[Example]]:
    """{dataset: samples}: two that the best method answered right and one wrong, where possible.

    Shown are finished runs that answered the same questions. `root` is the data folder for runs whose
    configuration names none.
    """
    finished = [entry for entry in group.entries if not entry.unfinished] or group.entries
    best = _best(group, finished)
    result: dict[str, list[Example]] = {}
    for dataset in group.datasets:
        questions = predictions(best.first, dataset)
        asked_alike = questions_digest(questions)
        answered: list[tuple[Entry, dict[str, Prediction]]] = []
        for entry in finished:
            rows = predictions(entry.first, dataset)
            if rows and questions_digest(rows) == asked_alike:
                answered.append((entry, {row.question_id: row for row in rows}))
        routed = next((entry.first for entry, _ in answered if entry.first.token_routed), None)
        why = ["fcit", "why", str(routed.path)] if routed else []
        graded = any(row.score not in (0.0, 100.0) for row in questions)
        folders = _images(best.first, root, dataset)
        if chosen := _choose(questions, best.first.seed, dataset):
            asked = [*why, dataset] if why else []
            result[dataset] = [_example(row, answered, folders, graded, asked) for row in chosen]
    return result


def _best(group: Group, entries: Sequence[Entry]) -> Entry:
    def last(entry: Entry) -> float:
        found = mean(run.last for run in entry.runs)
        return -1.0 if found is None else found

    first = group.datasets[:1]
    with_answers = [e for e in entries if any(predictions(e.first, name) for name in first)]
    competing = [entry for entry in with_answers if entry in group.contest]
    learning = [entry for entry in with_answers if not entry.reference]
    return max(competing or learning or with_answers or entries, key=last)


def _choose(rows: Sequence[Prediction], seed: int, dataset: str) -> list[Prediction]:
    """Two right and one wrong, drawn with the run's seed; more of the other where one lacks."""
    stream = numpy_stream(seed, "report examples", dataset)
    shuffled = [rows[int(at)] for at in stream.permutation(len(rows))]
    right = [row for row in shuffled if row.score >= RIGHT]
    wrong = [row for row in shuffled if row.score < RIGHT]
    chosen = right[: max(2, 3 - len(wrong))] + wrong[: max(1, 3 - len(right))]
    return chosen[:3]


def _example(
    question: Prediction,
    answered: Sequence[tuple[Entry, dict[str, Prediction]]],
    folders: Sequence[Path],
    graded: bool,
    why: Sequence[str],
) -> Example:
    answers: list[MethodAnswer] = []
    boxes: list[OverlayBox] = []
    if truth := _box(question.truth[0] if question.truth else "", "currentColor"):
        boxes.append(truth)
    for entry, table in answered:
        if row := table.get(question.question_id):
            right = row.score >= RIGHT
            mark = f"{row.score:.0f}" if graded else "✓" if right else "✗"
            text = _cut(row.prediction, 240)
            answers.append(MethodAnswer(entry.label, entry.colour, text, right, mark))
            if truth and (box := _box(row.prediction, entry.colour)):
                boxes.append(box)
    image, missing = embedded_image(folders, question.image)
    truths = tuple(_cut(text, 160) for text in question.truth[:2])
    prompt = _cut(question.prompt, 600)
    command = shlex.join([*why, f"--id={question.question_id}"]) if why else ""
    return Example(image, missing, prompt, truths, tuple(answers), tuple(boxes), command)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def embedded_image(folders: Sequence[Path], name: str) -> tuple[str, str]:
    """An image as a data URI and "", or "" and why there is none."""
    if not folders:
        return "", "image not shown: the run names no data folder"
    try:
        path = locate(folders, records.image(name))
    except records.RecordError:
        return "", "image not shown: its path leaves the data folder"
    from fcit.models.images import open_image

    try:
        if not path.is_file():
            return "", "image not found"
    except OSError:  # it is in a folder that this user may not read
        return "", "image cannot be read"
    out = io.BytesIO()
    try:
        image = open_image(path)
    except FcitError:
        return "", "image cannot be decoded"
    kind = "PNG" if max(image.size) <= _KEPT_SIDE else "JPEG"
    image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
    image.save(out, kind, quality=80)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}", ""


def _images(run: RunData, root: Path | None, dataset: str) -> Sequence[Path]:
    named = str(run.setting_of("data", "root", "") or run.data)
    folder = Path(named) if named else root
    images = [Path(path) for path in run.setting_of("data", "images", ())]
    try:
        return find(dataset, folder).image_folders(folder, images) if folder else ()
    except OSError:  # this user may not read it
        return ()


def _box(text: str, colour: str) -> OverlayBox | None:
    """The box an answer like "[0.1,0.2,0.5,0.9]" names, or None."""
    numbers = re.fullmatch(r"\s*\[?((?:\s*\d*\.?\d+\s*,){3}\s*\d*\.?\d+)\s*\]?\s*", text)
    if numbers is None:
        return None
    x1, y1, x2, y2 = map(float, numbers[1].split(","))
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
        return None
    return OverlayBox(colour, *(round(100 * side, 2) for side in (x1, y1, x2 - x1, y2 - y1)))
