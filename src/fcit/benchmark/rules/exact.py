"""exact: an answer is right if it equals the truth."""

from collections import Counter
from dataclasses import dataclass

from fcit.benchmark.rules.base import Mode, Rule, Truths


@dataclass(frozen=True)
class Exact(Rule):
    """Strict: but for case, outer white space and one final full stop. Reference: but for case."""

    def right(self, answer: str, truth: str, mode: Mode) -> bool:
        return _plain(answer, mode) == _plain(truth, mode)

    def best_constant(self, answers: Counter[str], truths: Truths, mode: Mode) -> str:
        counts = Counter(_plain(truth[0], mode) for truth in truths)
        return max(answers, key=lambda answer: counts[_plain(answer, mode)])


def _plain(text: str, mode: Mode) -> str:
    if mode == "reference":
        return text.upper()
    return text.strip().removesuffix(".").strip().casefold()
