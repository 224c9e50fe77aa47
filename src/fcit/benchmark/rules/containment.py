"""containment: the reference implementation takes a part of the truth for right."""

import sys
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from fcit.benchmark.rules.base import Mode, Rule, Truths
from fcit.benchmark.rules.exact import Exact


@dataclass(frozen=True)
class Containment(Rule):
    """Strict: as `exact`. Reference: any part of the truth is right, the empty answer included."""

    tries: ClassVar[int] = sys.maxsize

    def right(self, answer: str, truth: str, mode: Mode) -> bool:
        if mode == "strict":
            return Exact().right(answer, truth, mode)
        return answer.upper() in truth.upper()

    def best_constant(self, answers: Counter[str], truths: Truths, mode: Mode) -> str:
        rule = Exact() if mode == "strict" else super()
        return rule.best_constant(answers, truths, mode)
