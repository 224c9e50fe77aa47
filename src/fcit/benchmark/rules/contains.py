"""contains: an answer is right if the truth stands in it."""

import re
from dataclasses import dataclass
from functools import lru_cache

from fcit.benchmark.rules.base import Mode, Rule


@dataclass(frozen=True)
class Contains(Rule):
    """Strict: as whole words and numbers, ignoring case: 3 is in none of -3, .3, 0.3, 1/3 and 3/4, but in
    "2-3" (a range) and "B-3" (a name). Reference: as MLLM-CL's script for RS and AD."""

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
    before = _NO_PART if plain[:1].isdigit() else ""
    after = r"(?!/\d)" if plain[-1:].isdigit() else ""
    return re.compile(rf"(?<!\w)(?<!\d[.,]){before}{words}(?!\w)(?![.,]\d){after}")


_NO_PART = r"(?<!\d/)(?<![^\w.]\.)(?<!^\.)(?<![^\w.\-\u2212][-\u2212])(?<!^[-\u2212])"
"""Before a number stands no fraction bar, no bare decimal point, and no minus where a word begins."""
