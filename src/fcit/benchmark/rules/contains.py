"""contains: an answer is right if the truth stands in it."""

import re
from dataclasses import dataclass
from functools import lru_cache

from fcit.benchmark.rules.base import Mode, Rule


@dataclass(frozen=True)
class Contains(Rule):
    """Strict: as whole words and numbers, ignoring case. Reference: as MLLM-CL's script for RS and AD."""

    def right(self, answer: str, truth: str, mode: Mode) -> bool:
        if mode == "strict":
            return bool(_words(truth).search(answer.casefold()))
        said, sought = answer.lower(), truth.lower()
        if "Unanswerable" in answer or " " in sought:
            return "Unanswerable" not in answer and sought in said
        sought = sought.replace(".", "")
        bounded = (f" {sought}", f"{sought} ", f"{sought}.", f"{sought},")
        return any(text in said for text in (bounded if " " in said else (sought,)))


@lru_cache(maxsize=4096)
def _words(truth: str) -> re.Pattern[str]:
    plain = truth.strip().removesuffix(".").strip() or truth.strip()
    words = re.escape(plain.casefold())
    return re.compile(rf"(?<!\w)(?<!\d[.,]){words}(?!\w)(?![.,]\d)")
