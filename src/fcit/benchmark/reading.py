"""What of a model's answer is scored: models that were tuned to chat answer in sentences."""

import re
from typing import Literal

Reading = Literal["whole", "first line", "short"]

OPENING = re.compile(
    r"((so |thus )?(the )?(correct )?(answer|option|picture|image|it|this|that) (shows|is)[: ]+)?"
    r"((a|an|the) )?",
    re.IGNORECASE,
)
"""What a short answer may begin with and means nothing: "The answer is", "This is", an article."""


def read_answer(answer: str, reading: Reading) -> str:
    """The part of an answer that is scored.

    whole: all of it. first line: the first that has text. short: of the first line the first sentence,
    without "The answer is" or the like before it and without an article.
    """
    if reading == "whole":
        return answer
    line = next((line.strip() for line in answer.splitlines() if line.strip()), "")
    if reading == "first line":
        return line
    return OPENING.sub("", re.split(r"(?<=[.!?])\s", line, maxsplit=1)[0], count=1)
