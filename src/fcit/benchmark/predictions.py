"""Score a file of predictions, in the reference's answer form, against a dataset's test file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fcit.benchmark import captions, datasets, records, scorers
from fcit.benchmark.datasets import DATASETS, Dataset
from fcit.types import FcitError, Sample

Truths = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Scored:
    """`score` is percent, over `samples` predictions, of a test file that asks `questions`.

    `missing` questions have no prediction, `repeated` predictions are of a question answered before;
    strict scoring refuses both.
    """

    score: float
    samples: int
    dataset: str
    mode: str
    questions: int
    missing: int
    repeated: int


def score(dataset: str, truth: Path, predictions: Path, mode: scorers.Mode) -> Scored:
    """Score JSON lines {"question_id", "text"} against the official test file of a dataset.

    `truth` is the file of test records; of captions it is the COCO file of references. Strict: every
    question has exactly one prediction. Reference: as the published evaluation scripts count, whose
    denominator is the number of predictions, whatever is missing or repeated; the n-th caption of the
    file is that of image n. Raises FcitError naming file, line and field at fault, for a question
    that the test file does not ask, and for captions in reference mode without Java.
    """
    row = _row(dataset, truth)
    if row.scorer == "caption" and mode == "reference":
        captions.java()
    said = _predictions(predictions)
    truths = _captions(truth) if row.scorer == "caption" else _answers(truth, row, mode)
    ids = [name for name, _ in said]
    if row.scorer == "caption":
        ids = _images(ids, truths, truth, row, predictions, mode)
    _check(ids, truths, truth, predictions, mode)
    samples = [Sample(name, dataset, "", "", truths[name]) for name in ids]
    found = scorers.score(dataset, [text for _, text in said], samples, mode)
    distinct = len(set(ids))
    missing, repeated = len(truths) - distinct, len(ids) - distinct
    return Scored(found.percent, len(ids), dataset, mode, len(truths), missing, repeated)


def _row(dataset: str, truth: Path) -> Dataset:
    """The dataset's row; one of your own is known by its folder, so that no misspelt name passes."""
    row = datasets.find(dataset)
    if dataset not in DATASETS and truth.absolute().parent.name != dataset:
        raise FcitError(
            f"--dataset: {dataset!r} is none of {', '.join(DATASETS)}; the test file of a dataset of "
            f"your own stands in a folder of its name, instructions/{dataset}"
        )
    return row


def _predictions(path: Path) -> list[tuple[str, str]]:
    """Question ids, as text, and answers, in file order."""
    found: list[tuple[str, str]] = []
    for number, row in records.json_lines(path):
        try:
            if "question_id" not in row:
                raise records.RecordError("question_id: is missing")
            found.append((records.identifier(row, number), records.text(row, "text")))
        except records.RecordError as error:
            raise FcitError(f"{path}, line {number}: {error}") from None
    if not found:
        raise FcitError(f"{path}: holds no predictions")
    return found


def _answers(path: Path, row: Dataset, mode: scorers.Mode) -> Truths:
    """Right answers by question id; of repeated ids the last counts, as in the reference."""
    found: Truths = {}
    for at, record in enumerate(records.stream(path)):
        try:
            if not isinstance(record, dict):
                raise records.RecordError(f"must be an object, not {records.kind(record)}")
            name = records.identifier(record, at)
            if name in found and mode == "strict":
                raise records.RecordError(
                    f"question_id: {name!r} is also that of an earlier record"
                )
            found[name] = (records.answer(record, row.scorer == "box"),)
        except records.RecordError as error:
            raise FcitError(f"{path}, record {at + 1}: {error}") from None
    return found


def _captions(path: Path) -> Truths:
    """References by image id, which are to be 1, 2, ..."""
    notes = datasets.references(path)
    for number in range(1, max(notes, default=1) + 1):
        if number not in notes:
            raise FcitError(f"{path}: has no annotation with image_id {number}")
    return {str(number): notes[number] for number in range(1, len(notes) + 1)}


def _images(
    ids: Sequence[str],
    truths: Truths,
    truth: Path,
    row: Dataset,
    predictions: Path,
    mode: scorers.Mode,
) -> list[str]:
    """The image of every caption. Reference: the n-th has image n. Strict: by question id, which is
    the image's number, or that of the test record if the file of these stands beside `truth`."""
    if mode == "reference":
        if len(ids) > len(truths):
            raise FcitError(
                f"{predictions}: {len(ids)} captions, but {truth} has {len(truths)} images"
            )
        return [str(number) for number in range(1, len(ids) + 1)]
    beside = truth.with_name(row.test_file)
    if beside.is_file():
        asked = [
            records.identifier(record, at) if isinstance(record, dict) else ""
            for at, record in enumerate(records.stream(beside))
        ]
        numbers = {name: str(number) for number, name in enumerate(asked, 1)}
        if len(numbers) == len(asked) == len(truths) and numbers.keys() >= set(ids):
            return [numbers[name] for name in ids]
    if unknown := next((name for name in ids if name not in truths), None):
        raise FcitError(
            f"{predictions}: question_id {unknown!r} is none of the image numbers of {truth} (1 to "
            f"{len(truths)}), and ids of {row.test_file} are known only if that stands beside it"
        )
    return list(ids)


def _check(
    ids: Sequence[str], truths: Truths, truth: Path, predictions: Path, mode: scorers.Mode
) -> None:
    """Refuse what has no score: unknown questions, and, strictly, missing and repeated ones."""
    for number, name in enumerate(ids, 1):
        if name not in truths:
            raise FcitError(f"{predictions}, prediction {number}: {truth} has no question {name!r}")
    if mode == "strict":
        (name, count), *_ = Counter(ids).most_common(1)
        if count > 1:
            raise FcitError(f"{predictions}: {count} predictions for the question {name!r}")
        given = set(ids)
        if missing := [name for name in truths if name not in given]:
            raise FcitError(
                f"{predictions}: no prediction for {len(missing)} of {len(truths)} questions, "
                f"the first is {missing[0]!r}"
            )
