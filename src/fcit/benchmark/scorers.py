"""Score answers, strictly or as the reference implementation does, and the chance of a dataset.

`reference` is comparable with published tables, their quirks included; `strict` is correct. Every
number fcit writes says which it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fcit.benchmark import captions
from fcit.benchmark.datasets import find
from fcit.benchmark.records import numbers
from fcit.types import FcitError, Sample

Mode = Literal["strict", "reference"]
Box = tuple[float, float, float, float]

FREQUENT = 20
"""How many of the most frequent training captions `chance` tries."""


@dataclass(frozen=True)
class Score:
    """Percent of a dataset, and of each sample in the order given (0 to 100).

    A caption's own percent is the mean of its sentence-level scores; `percent` is corpus-level.
    """

    percent: float
    each: list[float]


def score(dataset: str, predictions: Sequence[str], samples: Sequence[Sample], mode: Mode) -> Score:
    """Score predictions, one for each sample in their order, by the dataset's rule and the mode.

    Raises FcitError when their numbers differ or there are none, on a duplicate sample id (strict),
    and for captions in reference mode without Java.
    """
    row = find(dataset)
    _check(dataset, predictions, samples, mode)
    if row.scorer == "caption":
        references = [sample.answers for sample in samples]
        return Score(*captions.evaluate(predictions, references, mode == "reference"))
    right = _RULES[row.scorer, mode]
    pairs = zip(predictions, samples, strict=True)
    each = [100.0 * right(said, sample.answers[0]) for said, sample in pairs]
    return Score(sum(each) / len(each), each)


def chance(dataset: str, train: Sequence[Sample], test: Sequence[Sample], mode: Mode) -> float:
    """Percent of the best constant answer: of the training answers, the one that scores most on test.

    For captions it is the best of the 20 most frequent training captions, chosen without METEOR.
    Raises FcitError as `score` does, and when there is no training answer.
    """
    row = find(dataset)
    answers = Counter(sample.answers[0] for sample in train)
    if not answers:
        raise FcitError(f"{dataset}: no training samples to take a constant answer from")
    _check(dataset, [""] * len(test), test, mode)
    if row.scorer == "caption":
        frequent = [caption for caption, _ in answers.most_common(FREQUENT)]
        references = [sample.answers for sample in test]
        best = captions.best_constant(frequent, references, mode == "reference")
    elif row.scorer == "box":
        best = _best_box(list(answers), [sample.answers[0] for sample in test], mode)
    else:
        best = _best_word(answers, Counter(sample.answers[0] for sample in test), row.scorer, mode)
    return score(dataset, [best] * len(test), test, mode).percent


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2); 0 where the union has no area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else 0.0


def _check(dataset: str, predictions: Sequence[str], samples: Sequence[Sample], mode: str) -> None:
    if mode not in ("strict", "reference"):
        raise FcitError(f"evaluation.scoring: {mode!r}; there are strict and reference")
    if len(predictions) != len(samples):
        raise FcitError(
            f"{dataset}: {len(predictions)} predictions for {len(samples)} samples; "
            "every sample needs one"
        )
    if not samples:
        raise FcitError(f"{dataset}: no samples to score")
    if mode == "strict":
        unlike(dataset, samples)


def unlike(dataset: str, samples: Sequence[Sample]) -> None:
    """Raise FcitError where test samples share an id."""
    for name, count in Counter(sample.id for sample in samples).most_common(1):
        if count > 1:
            raise FcitError(f"{dataset}: {count} samples have the id {name!r}; ids must differ")


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").strip().casefold()


def _equal(said: str, truth: str) -> bool:
    return _plain(said) == _plain(truth)


def _equal_upper(said: str, truth: str) -> bool:
    return said.upper() == truth.upper()


def _contained(said: str, truth: str) -> bool:
    """The reference's rule, which takes an empty answer, and a part of the right one, for right."""
    return said.upper() in truth.upper()


def _strict_box(text: str) -> Box | None:
    box = numbers(text.strip().removesuffix("."))
    return box if box and box[0] < box[2] and box[1] < box[3] else None


def _reference_box(text: str) -> Box | None:
    """As the reference reads a predicted box: without brackets and without its outer characters."""
    parts = text.replace("[", "").replace("]", "")[1:-1].split(",")
    try:
        x1, y1, x2, y2 = map(float, parts)
    except ValueError:
        return None
    return x1, y1, x2, y2


def _overlap(read: Callable[[str], Box | None]) -> Callable[[str, str], bool]:
    def rule(said: str, truth: str) -> bool:
        box, true = read(said), numbers(truth)
        return box is not None and true is not None and iou(box, true) > 0.5

    return rule


_RULES: dict[tuple[str, str], Callable[[str, str], bool]] = {
    ("exact", "strict"): _equal,
    ("exact", "reference"): _equal_upper,
    ("containment", "strict"): _equal,
    ("containment", "reference"): _contained,
    ("box", "strict"): _overlap(_strict_box),
    ("box", "reference"): _overlap(_reference_box),
}
"""Whether an answer is right, by scorer and mode; captions are scored as a corpus."""


def _best_word(answers: Iterable[str], truths: Mapping[str, int], scorer: str, mode: Mode) -> str:
    """The answer, in its compared form, that is right for most truths; the first of equals."""
    plain = _plain if mode == "strict" else str.upper
    candidates = sorted(set(map(plain, answers)))
    if scorer == "containment" and mode == "reference":
        pairs = truths.items()
        return max(
            candidates, key=lambda said: sum(n for true, n in pairs if _contained(said, true))
        )
    counts = Counter[str]()
    for truth, count in truths.items():
        counts[plain(truth)] += count
    return max(candidates, key=lambda said: counts[said])


def _best_box(answers: list[str], truths: list[str], mode: Mode) -> str:
    """The answer whose box overlaps most truths by more than half; the first of equals."""
    import numpy as np

    read = _strict_box if mode == "strict" else _reference_box
    known: Any = np.array([box for box in map(numbers, truths) if box], dtype=float).reshape(-1, 4)
    areas = _area(known.T)
    best, most = answers[0], -1
    for answer in answers:
        box = read(answer)
        if box is None:
            continue
        width = np.minimum(box[2], known[:, 2]) - np.maximum(box[0], known[:, 0])
        height = np.minimum(box[3], known[:, 3]) - np.maximum(box[1], known[:, 1])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        hits = int((shared > 0.5 * (areas + _area(box) - shared)).sum())
        if hits > most:
            best, most = answer, hits
    return best


def _area(box: Sequence[Any]) -> Any:
    return (box[2] - box[0]) * (box[3] - box[1])
