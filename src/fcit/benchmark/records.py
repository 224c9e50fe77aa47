"""One record of the official layout into a sample, refusing what does not have its form."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from fcit.types import Sample


class RecordError(Exception):
    """A record that cannot be read; the message names the field."""


def training(record: dict[str, Any], at: int, name: str, image: Callable[[Any], str]) -> Sample:
    """A LLaVA record: human and gpt turns alternate; those after the first pair go to `more`.

    `at` is the record's place in its file, from 0; `image` checks its image path. Raises RecordError.
    """
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise RecordError("conversations: must be a list of pairs of a human and a gpt turn")
    said: list[str] = []
    for number, turn in enumerate(turns, 1):
        speaker = "human" if number % 2 else "gpt"
        field = f"conversations, turn {number}"
        if not isinstance(turn, dict) or turn.get("from") != speaker:
            raise RecordError(f'{field}: must be an object with "from": "{speaker}"')
        said.append(_text(turn, "value", f"{field}, "))
    asked = [_prompt(text, "conversations") for text in said[::2]]
    (prompt, answer), *more = zip(asked, said[1::2], strict=True)
    return Sample(_id(record, at), name, image(record.get("image")), prompt, (answer,), tuple(more))


def test(
    record: dict[str, Any],
    at: int,
    name: str,
    image: Callable[[Any], str],
    box: bool = False,
    answers: tuple[str, ...] | None = None,
) -> Sample:
    """A test record: its answer is `answer`, a box in `answer_bbox`, or `answers` from elsewhere.

    Raises RecordError.
    """
    if answers is None:
        answers = (_text(record, "answer_bbox" if box else "answer"),)
        if box and numbers(answers[0]) is None:
            raise RecordError(f'answer_bbox: {answers[0]!r} is not of the form "[x1,y1,x2,y2]"')
    prompt = _prompt(_text(record, "text"), "text")
    return Sample(_id(record, at), name, image(record.get("image")), prompt, answers)


_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def numbers(box: str) -> tuple[float, float, float, float] | None:
    """The four numbers of "[x1,y1,x2,y2]" (brackets optional), or None where it has another form."""
    text = box.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    x1, y1, x2, y2 = map(float, parts)
    return (x1, y1, x2, y2) if all(map(math.isfinite, (x1, y1, x2, y2))) else None


def image(images: Path, folders: dict[str, bool], value: Any) -> str:
    """An image path in its plain form; RecordError where it would lead out of `images` (resolved).

    `folders` remembers which folders were found to lie inside.
    """
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise RecordError("image: must be a path relative to datasets/")
    windows, path = PureWindowsPath(value), PurePosixPath(value)
    if windows.anchor or ".." in windows.parts:
        raise RecordError(f"image: {value!r} leaves datasets/")
    folder, full = str(path.parent), images / path
    if folder not in folders:
        folders[folder] = full.parent.resolve().is_relative_to(images)
    linked = os.path.islink(full)  # noqa: PTH114 (a third of the time, for 100,000 records)
    if not folders[folder] or (linked and not full.resolve().is_relative_to(images)):
        raise RecordError(f"image: {value!r} leaves datasets/ by a link")
    return str(path)


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return "nothing" if value is None else kinds.get(type(value), "a number")


def _text(record: dict[str, Any], key: str, place: str = "") -> str:
    value = record.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        state = f"must be text, not {kind(value)}" if key in record else "is missing"
        raise RecordError(f"{place}{key}: {state}")
    return value


def _id(record: dict[str, Any], at: int) -> str:
    for key in ("question_id", "id"):
        if key in record:
            value = record[key]
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise RecordError(f"{key}: must be text or a whole number, not {kind(value)}")
            return str(value)
    return str(at)


_PLACEHOLDER = re.compile(r"\s*<image>\s*")


def _prompt(text: str, field: str) -> str:
    """The instruction without image placeholders, wherever they stand."""
    kept = _PLACEHOLDER.sub(lambda found: "\n" if "\n" in found.group() else " ", text).strip()
    if not kept:
        raise RecordError(f"{field}: the instruction is empty")
    return kept
