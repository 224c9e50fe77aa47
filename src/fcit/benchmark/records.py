"""One record of the official layout into a sample, refusing what does not have its form."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TextIO, TypeVar

from fcit.files import JSON, BadValue, clean, json_lines, kind, read_json, reading
from fcit.types import FcitError, Sample, one_line

T = TypeVar("T")


class RecordError(Exception):
    """A record that cannot be read; the message names the field."""


@dataclass(frozen=True)
class BadRecord:
    """What is wrong with a record of a file; records count from 1."""

    file: Path
    record: int
    what: str


def parse(
    path: Path, rows: Iterable[Any], reader: Callable[[dict[str, Any], int], T]
) -> Iterator[T | BadRecord]:
    """What `reader` makes of each record of a file and its place from 0; where it raises RecordError,
    a BadRecord."""
    for at, record in enumerate(rows):
        try:
            if not isinstance(record, dict):
                raise RecordError(f"must be an object, not {kind(record)}")
            yield reader(record, at)
        except RecordError as error:
            yield BadRecord(path, at + 1, str(error))


def sound(parsed: Iterable[T | BadRecord]) -> list[T]:
    """The values. Raises FcitError naming the file and record of the first that is bad."""
    values: list[T] = []
    for value in parsed:
        if isinstance(value, BadRecord):
            raise FcitError(f"{value.file}, record {value.record}: {value.what}")
        values.append(value)
    return values


def training(record: dict[str, Any], at: int, name: str) -> Sample:
    """A LLaVA record: human and gpt turns alternate; those after the first pair go to `more`.

    `at` is the record's place in its file, from 0. Raises RecordError.
    """
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise RecordError("conversations: must be a list of pairs of a human and a gpt turn")
    texts: list[str] = []
    for number, turn in enumerate(turns, 1):
        speaker = "human" if number % 2 else "gpt"
        field = f"conversations, turn {number}"
        if not isinstance(turn, dict) or turn.get("from") != speaker:
            raise RecordError(f'{field}: must be an object with "from": "{speaker}"')
        read = text if number % 2 else filled
        texts.append(read(turn, "value", f"{field}, "))
    prompts = [_prompt(text, "conversations") for text in texts[::2]]
    (prompt, answer), *more = zip(prompts, texts[1::2], strict=True)
    return Sample(identifier(record, at), name, image_path(record), prompt, (answer,), tuple(more))


def spoken(train: Iterable[Sample]) -> Iterator[str]:
    """The answers of training samples, those of later turns too."""
    for sample in train:
        yield from (sample.answers[0], *(answer for _, answer in sample.more))


def training_record(sample: Sample) -> dict[str, Any]:
    """A sample in the form that `training` reads; the image placeholder opens its first human turn."""
    pairs = [("<image>\n" + sample.prompt, sample.answers[0]), *sample.more]
    turns = [
        {"from": speaker, "value": value}
        for turn in pairs
        for speaker, value in zip(("human", "gpt"), turn, strict=True)
    ]
    return {"id": sample.id, "image": sample.image, "conversations": turns}


def test(record: dict[str, Any], at: int, name: str, answers: tuple[str, ...]) -> Sample:
    """A test record and its right answers. Raises RecordError."""
    prompt = _prompt(text(record, "text"), "text")
    return Sample(identifier(record, at), name, image_path(record), prompt, answers)


def image_path(record: dict[str, Any]) -> str:
    """The path of a record's one image (`image`, or `images` with one). Raises RecordError."""
    key = "images" if "images" in record and "image" not in record else "image"
    value = record.get(key)
    if isinstance(value, list):
        if len(value) != 1:
            raise RecordError(f"{key}: names {len(value)} images; a record has one")
        value = value[0]
    return image(value)


def image(value: Any, folder: str = "datasets/") -> str:
    """An image path in its plain form; RecordError where it would leave its folder.

    Links are followed wherever they lead: who made the folder made them, often to another disk.
    """
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f"image: must be a path relative to {folder}")
    if _CONTROL.search(value) or _bytes(value) > 2000 or max(map(_bytes, value.split("/"))) > 255:
        raise RecordError(f"image: {one_line(value)!r} cannot be a path")
    windows = PureWindowsPath(value)
    if windows.anchor or ".." in windows.parts:
        raise RecordError(f"image: {value!r} leaves {folder}")
    return str(PurePosixPath(value))


def _bytes(text: str) -> int:
    """How long a name or path is in a file system, which takes 255 of a name and some 4000 of a path."""
    return len(text.encode("utf-8", "surrogatepass"))


def stream(path: Path, chunk: int = 1 << 20) -> Iterator[Any]:
    """The records of a file of one JSON list, read `chunk` characters at a time, or of JSON lines.

    So a file of 100,000 records never is in memory as a whole. Raises FcitError naming the file (and
    the place) where it cannot be read, is not JSON, holds no list, or an empty one.
    """
    count = 0
    if holds_lines(path):
        for _, value in json_lines(path):
            count += 1
            yield value
        if not count:
            raise FcitError(f"{path}: holds no records")
        return
    try:
        with path.open(encoding="utf-8-sig") as file:
            for value in _decoded(file, chunk):
                count += 1
                yield value
    except BadValue as error:
        raise FcitError(f"{path}, record {count + 1}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        whole = read_json(path)  # says what is wrong, and where
        reason = (
            error if isinstance(whole, list) else f"must hold a list of records, not {kind(whole)}"
        )
        raise FcitError(f"{path}: {reason}") from None
    if not count:
        raise FcitError(f"{path}: holds no records")


def holds_lines(path: Path) -> bool:
    """Whether a file holds JSON lines: it is called so, or has several lines that are objects."""
    if path.suffix == ".jsonl" or not path.is_file():
        return path.suffix == ".jsonl"
    with reading(path), path.open(encoding="utf-8-sig") as file:
        if file.read(64).lstrip()[:1] != "{":
            return False
        file.seek(0)
        lines = (line for line in file if line.strip())
        return next(lines).rstrip().endswith("}") and next(lines, "").lstrip().startswith("{")


def _decoded(file: TextIO, chunk: int) -> Iterator[Any]:
    """The values of a JSON list; ValueError where the text is not one."""
    text, at, size, mark = "", 0, chunk, ""
    while True:
        try:
            at = _gap(text, at)
            if not mark:
                if text[at] != "[":
                    raise ValueError("a list must begin with [")
                mark, at = "[", at + 1
                continue
            if mark == "[" and text[at] == "]":
                at += 1
                break
            value, end = JSON.raw_decode(text, at)
            end = _gap(text, end)
            if text[end] not in ",]":
                raise ValueError("values must be separated by commas")
        except (IndexError, ValueError):  # cut off at the end of what was read, or wrong
            more = file.read(size)
            if not more:
                raise ValueError("the list has no end") from None
            text, at, size = text[at:] + more, 0, 2 * size
            continue
        yield value
        mark, at, size = text[end], end + 1, chunk
        if mark == "]":
            break
    if _gap(rest := text[at:] + file.read(), 0) < len(rest):
        raise ValueError("something follows the list")


def _gap(text: str, at: int) -> int:
    """Where the white space that begins at a place ends."""
    match = _WHITE.match(text, at)
    return match.end() if match else at


_WHITE = re.compile(r"[ \t\n\r]+")


def text(record: dict[str, Any], key: str, where: str = "") -> str:
    """A field that holds text, or a number, which counts as text in its shortest form (1.0 as "1").

    Raises RecordError.
    """
    value = record.get(key)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value + 0.0).removesuffix(".0")  # -0.0 + 0.0 is 0.0
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        what = str(value) if isinstance(value, float) else kind(value)
        state = f"must be text, not {what}" if key in record else "is missing"
        raise RecordError(f"{where}{key}: {state}")
    try:
        return clean(value)
    except FcitError as error:
        raise RecordError(f"{where}{key}: {error}") from None


def filled(record: dict[str, Any], key: str, where: str = "") -> str:
    """As `text`, of a field that may not be empty: something in it must be seen."""
    value = text(record, key, where)
    if not any(letter.isprintable() for letter in value if not letter.isspace()):
        raise RecordError(f"{where}{key}: is empty")
    return value


def identifier(record: dict[str, Any], at: int) -> str:
    """A record's `question_id` or `id`, else its place in the file. Raises RecordError."""
    for key in ("question_id", "id"):
        if key in record:
            if isinstance(record[key], bool) or not isinstance(record[key], str | int):
                raise RecordError(f"{key}: must be text or a whole number, not {kind(record[key])}")
            value = filled(record, key)
            if _CONTROL.search(value):
                raise RecordError(f"{key}: {value!r} holds a control character")
            return value
    return str(at)


_CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f\ud800-\udfff]")

PLACEHOLDER = re.compile(r"\s*<image>\s*")


def bare(text: str) -> str:
    """An instruction without what stands for its image."""
    return PLACEHOLDER.sub(lambda match: "\n" if "\n" in match.group() else " ", text).strip()


def _prompt(text: str, field: str) -> str:
    """The instruction without image placeholders, wherever they stand."""
    prompt = bare(text)
    if not prompt:
        raise RecordError(f"{field}: the instruction is empty")
    return prompt
