"""box: an answer is right if its box overlaps the true one by more than half."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fcit.benchmark.records import RecordError
from fcit.benchmark.rules.base import Mode, Rule, Truths

Corners = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Box(Rule):
    """A box is "[x1,y1,x2,y2]", in shares of the image's sides; overlap is intersection over union."""

    field: ClassVar[str] = "answer_bbox"
    mark: ClassVar[re.Pattern[str]] = re.compile(r"\[(?:\s*\d*\.?\d+\s*,){3}\s*\d*\.?\d+\s*\]")

    def truth(self, record: dict[str, Any]) -> str:
        text = super().truth(record)
        box = numbers(text)
        if box is None:
            raise RecordError(f'{self.field}: {text!r} is not of the form "[x1,y1,x2,y2]"')
        self.check(text)
        if box[0] == box[2] or box[1] == box[3]:
            raise RecordError(f"{self.field}: {text!r} has no area: x1 is not below x2, or y1 y2")
        return text

    def check(self, answer: str) -> None:
        box = numbers(
            answer
        )  # None: another kind of answer, such as a description of the box asked
        if box and not all(0 <= value <= 1 for value in box):
            raise RecordError(f"{self.field}: {answer!r} is not within 0 to 1; pixels?")
        if box and (box[0] > box[2] or box[1] > box[3]):
            raise RecordError(f"{self.field}: {answer!r} is inverted: x1 is above x2, or y1 y2")

    def right(self, answer: str, truth: str, mode: Mode) -> bool:
        box, true = read(answer, mode), numbers(truth)
        return box is not None and true is not None and iou(box, true) > 0.5

    def best_constant(self, answers: Counter[str], truths: Truths, mode: Mode) -> str:
        import numpy as np

        known: Any = np.array([box for truth in truths if (box := numbers(truth[0]))], dtype=float)
        known = known.reshape(-1, 4)
        areas = _area(known.T)

        def hits(answer: str) -> int:
            box = read(answer, mode)
            if box is None:
                return -1
            width = np.minimum(box[2], known[:, 2]) - np.maximum(box[0], known[:, 0])
            height = np.minimum(box[3], known[:, 3]) - np.maximum(box[1], known[:, 1])
            shared = np.maximum(width, 0) * np.maximum(height, 0)
            union = areas + _area(box) - shared  # of an inverted box it may be negative
            return int(((union > 0) & (shared > 0.5 * union)).sum())

        return max(answers, key=hits)


def read(answer: str, mode: Mode) -> Corners | None:
    """The box of an answer; None where it says none.

    The reference reads it without brackets and without its outer characters, whatever they are.
    """
    if mode == "strict":
        box = numbers(answer.strip().removesuffix("."))
        return box if box and box[0] < box[2] and box[1] < box[3] else None
    parts = answer.replace("[", "").replace("]", "")[1:-1].split(",")
    try:
        x1, y1, x2, y2 = map(float, parts)
    except ValueError:
        return None
    return x1, y1, x2, y2


_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def numbers(box: str) -> Corners | None:
    """The four numbers of "[x1,y1,x2,y2]" (brackets optional), or None where it has another form."""
    text = box.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    x1, y1, x2, y2 = map(float, parts)
    return (x1, y1, x2, y2) if all(map(math.isfinite, (x1, y1, x2, y2))) else None


def iou(box: Corners, other: Corners) -> float:
    """Intersection over union of two boxes; 0 where the union has no area."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    union = _area(box) + _area(other) - shared
    return shared / union if union > 0 else 0.0


def _area(box: Sequence[Any]) -> Any:
    return (box[2] - box[0]) * (box[3] - box[1])
