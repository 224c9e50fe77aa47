"""What of a model's answer is scored: models that were tuned to chat answer in sentences."""

import re
from collections.abc import Sequence
from typing import Literal

Reading = Literal["whole", "first line", "short"]

OPENING = re.compile(
    r"((so |thus )?(the )?(correct )?(answer|option|picture|image|it|this|that) (shows|is)[: ]+)?"
    r"((a|an|the) )?",
    re.IGNORECASE,
)
"""What a short answer may begin with and means nothing: "The answer is", "This is", an article."""

STOP = re.compile(r"(?<=[.!?])\s")
"""Where a sentence ends, or an abbreviation."""


def read_answer(answer: str, reading: Reading, truths: Sequence[str] = ()) -> str:
    """The part of an answer that is scored.

    whole: all of it. first line: the first that has text. short: of the first line the first sentence,
    without "The answer is" or the like before it and without an article. Where a truth itself has stops
    ("J. K. Rowling"), as many parts of the line are kept as the truth has.
    """
    if reading == "whole":
        return answer
    line = next((line.strip() for line in answer.splitlines() if line.strip()), "")
    if reading == "first line":
        return line
    stops = max((len(STOP.findall(read_truth(truth))) for truth in truths), default=0)
    ends = [stop.start() for stop in STOP.finditer(line)]
    return OPENING.sub("", line[: ends[stops]] if len(ends) > stops else line, count=1)


def read_truth(truth: str) -> str:
    """A truth as short answers are compared with it: its first line, without an article ("The Hague")."""
    return OPENING.sub("", read_answer(truth, "first line"), count=1)
