"""What of a model's answer is scored: models that were tuned to chat answer in sentences."""

import re
from collections.abc import Iterable
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


def read_answer(answer: str, reading: Reading, stops: int = 0) -> str:
    """The part of an answer that is scored.

    whole: all of it. first line: the first that has text. short: of the first line the first sentence,
    without "The answer is" or the like before it and without an article. `stops`: of the truths
    (see `most_stops`); where they have some ("J. K. Rowling"), as many are kept in the line.
    """
    if reading == "whole":
        return answer
    line = next((line.strip() for line in answer.splitlines() if line.strip()), "")
    if reading == "first line":
        return line
    ends = [stop.start() for stop in STOP.finditer(line)]
    return OPENING.sub("", line[: ends[stops]] if len(ends) > stops else line, count=1)


def most_stops(truths: Iterable[str]) -> int:
    """The most stops that a truth has within it."""
    return max((len(STOP.findall(read_truth(truth))) for truth in truths), default=0)


def read_truth(truth: str) -> str:
    """A truth as short answers are compared with it: its first line, without an article ("The Hague")."""
    return OPENING.sub("", read_answer(truth, "first line"), count=1)
