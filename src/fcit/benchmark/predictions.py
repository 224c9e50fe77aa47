"""Score a file of predictions, in the reference's answer form, against a dataset's test file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fcit.benchmark import datasets, layout, records
from fcit.benchmark.datasets import DATASETS, NO_RULES
from fcit.benchmark.rules import Mode, Rule, title
from fcit.files import json_lines
from fcit.types import FcitError, Sample


@dataclass(frozen=True)
class Scored:
    """A file's score, and what it was taken over. Strict scoring refuses missing and repeated answers."""

    score: float
    """Percent of the predictions."""
    samples: int
    """Predictions."""
    dataset: str
    mode: str
    questions: int
    """Questions of the test file."""
    missing: int
    """Questions without a prediction."""
    repeated: int
    """Predictions of a question that an earlier one answers."""
    rule: str
    """The scoring rule: its name, or that of your own file."""


def score(
    dataset: str,
    truth: Path,
    predictions: Path,
    mode: Mode,
    rules: Mapping[str, Rule] = NO_RULES,
) -> Scored:
    """Score JSON lines {"question_id", "text"} against the official test file of a dataset.

    `truth` is the file of test records; of captions it is the COCO file of references. Strict: every
    question has exactly one prediction. Reference: as the published evaluation scripts count, whose
    denominator is the number of predictions, whatever is missing or repeated; the n-th caption of the
    file is that of image n. `rules`: rules of your own by dataset. Raises FcitError naming file, line
    and field at fault, for a question that the test file does not ask, and for captions in reference
    mode without Java.
    """
    folder = truth.absolute().parent
    known = datasets.find(dataset, layout.root_of(folder), rules)
    if dataset not in DATASETS and folder.name != known.folder:
        raise FcitError(  # so that no misspelt name passes for a dataset of your own
            f"--dataset: {dataset!r} is none of {', '.join(DATASETS)}; the test file of a dataset of "
            f"your own stands in a folder of its name, instructions/{dataset}"
        )
    known.rule.require(mode)
    given = _predictions(predictions)
    truths, ids = known.rule.key(truth, known.test_file, [name for name, _ in given], mode)
    _check(ids, truths, truth, predictions, mode)
    samples = [Sample(name, dataset, "", "", truths[name]) for name in ids]
    result = known.score([text for _, text in given], samples, mode)
    distinct = len(set(ids))
    missing, repeated = len(truths) - distinct, len(ids) - distinct
    counts = len(truths), missing, repeated
    return Scored(result.percent, len(ids), dataset, mode, *counts, title(known.rule))


def _predictions(path: Path) -> list[tuple[str, str]]:
    """Question ids, as text, and answers, in file order."""
    predictions: list[tuple[str, str]] = []
    for number, row in json_lines(path):
        try:
            if "question_id" not in row:
                raise records.RecordError("question_id: is missing")
            predictions.append((records.identifier(row, number), records.text(row, "text")))
        except records.RecordError as error:
            raise FcitError(f"{path}, line {number}: {error}") from None
    if not predictions:
        raise FcitError(f"{path}: holds no predictions")
    return predictions


def _check(
    ids: Sequence[str], truths: Mapping[str, object], truth: Path, predictions: Path, mode: Mode
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
