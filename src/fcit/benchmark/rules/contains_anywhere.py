"""contains_anywhere: an answer is right if the truth stands in it, also within a word."""

from dataclasses import dataclass

from fcit.benchmark.rules.base import Mode, Rule
from fcit.benchmark.rules.contains import Contains


@dataclass(frozen=True)
class ContainsAnywhere(Rule):
    """Strict: as `contains`. Reference: as MLLM-CL's script for Med."""

    def right(self, answer: str, truth: str, mode: Mode) -> bool:
        if mode == "strict":
            return Contains().right(answer, truth, mode)
        return "Unanswerable" not in answer and truth.lower() in answer.lower()
