"""What a scoring rule says: when an answer is right, where the truth stands, the best constant answer."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from fcit.benchmark import records
from fcit.types import Sample

Mode = Literal["strict", "reference"]
"""Scoring that is correct, or comparable with published tables, their quirks included."""

Truths = Sequence[tuple[str, ...]]
"""Of every sample, its right answer, or several references."""


@dataclass(frozen=True)
class Accuracy:
    """Scores in percent."""

    percent: float
    """Of all samples together."""
    each: list[float]
    """Of every sample in the order given, 0 to 100."""


class Rule:
    """How a dataset's answers are scored. A rule of your own defines `right`; the rest has defaults."""

    field: ClassVar[str] = "answer"
    """The field of a test record that holds the truth."""
    tries: ClassVar[int] = 1000
    """So many of the most frequent training answers are tried as the best constant answer."""
    by_id: ClassVar[bool] = True
    """Whether reference scoring finds a truth by the question's id, of repeated ones the last; else by
    the record's place."""
    mark: ClassVar[re.Pattern[str] | None] = None
    """What a training record of this rule contains, for datasets that share a folder of images."""
    files: tuple[str, ...] = ()
    """Files that must stand beside the test file."""

    def right(self, answer: str, truth: str, mode: Mode) -> float:
        """1 (or True) for a right answer, 0 for a wrong one, or a share between them."""
        raise NotImplementedError

    def truth(self, record: dict[str, Any]) -> str:
        """The truth in a test record. Raises RecordError where it does not have the rule's form."""
        return records.filled(record, self.field)

    def check(self, answer: str) -> None:
        """Raise RecordError where a training answer has the form of a right one, but cannot be one."""

    def truths(self, test: Path, count: int) -> Callable[[dict[str, Any], int], tuple[str, ...]]:
        """A function from a record of a test file of `count` records, and its place in it from 0, to
        its truths; it raises RecordError. Raises FcitError for a malformed file beside it."""
        return lambda record, at: (self.truth(record),)

    def write(self, test: Path, samples: Sequence[Sample]) -> None:
        """Write the files that stand beside a test file of these samples."""

    def score(self, answers: Sequence[str], truths: Truths, mode: Mode) -> Accuracy:
        """The accuracy of as many answers as there are truths, at least one."""
        pairs = zip(answers, truths, strict=True)
        each = [100.0 * self.right(answer, truth, mode) for answer, (truth, *_) in pairs]
        return Accuracy(sum(each) / len(each), each)

    def best_constant(self, answers: Counter[str], truths: Truths, mode: Mode) -> str:
        """The one of the training answers (with their counts) that scores most as the answer to
        everything. A rule that can do it faster than trying them does."""
        counts = Counter(truth[0] for truth in truths)
        together = type(self).right is Rule.right  # the rule defines `score` alone

        def total(answer: str) -> float:
            if together:
                return self.score([answer] * len(truths), truths, mode).percent
            return sum(n * self.right(answer, truth, mode) for truth, n in counts.items())

        return max((answer for answer, _ in answers.most_common(self.tries)), key=total)

    def require(self, mode: Mode) -> None:
        """Raise FcitError where this machine lacks a program that scoring needs."""

    def key(
        self, file: Path, test_file: str, ids: Sequence[str], mode: Mode
    ) -> tuple[Mapping[str, tuple[str, ...]], Sequence[str]]:
        """Truths by question id, read from `file`, and the question that each prediction answers, which
        is the one of its id. Of repeated questions the last counts (reference), as in the published
        scripts, or they are refused (strict). Raises FcitError naming file and record."""
        truths: dict[str, tuple[str, ...]] = {}

        def read(record: dict[str, Any], at: int) -> None:
            name = records.identifier(record, at)
            if name in truths and mode == "strict":
                raise records.RecordError(
                    f"question_id: {name!r} is also that of an earlier record"
                )
            truths[name] = (self.truth(record),)

        records.sound(records.parse(file, records.stream(file), read))
        return truths, ids
