"""What `faults.py` does to files and values: bits flipped, ends cut, lines removed, values replaced."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

TEXT = {".json", ".jsonl", ".toml", ".jinja", ".md"}
ODD: dict[str, Any] = {
    "null": None, "true": True, "-1": -1, "0": 0, "99": 99, "1e400": float("inf"),
    "NaN": float("nan"), "a huge integer": 10**400, "text": "odd", "no text": "", "a list": [],
    "an object": {}, "half a character": "\ud800", "a control character": "\x1b[31m",
    "a path upwards": "../../x", "deep": [[[[]]]],
}  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in JSON that hold no other values."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inside:
        if isinstance(part, dict | list) and part:
            yield from leaves(part, (*path, key))
        else:
            yield (*path, key)


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of the JSON with the value at a path replaced."""
    value = spot = copy.deepcopy(value)
    for key in path[:-1]:
        spot = spot[key]
    spot[path[-1]] = new
    return value


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """The value at a path."""
    for key in path:
        value = value[key]
    return value


def near(value: Any) -> Any:
    """A value that could stand there as well."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return {"yes": "no", "no": "yes"}.get(value, f"{value}2") if isinstance(value, str) else 1


def odd_json(value: Any, draw: np.random.Generator) -> tuple[str, Any]:
    """JSON with one value replaced by an odd one, or one key left out; and what was done."""
    paths = list(leaves(value))
    path = paths[draw.integers(len(paths))]
    name = ".".join(map(str, path))
    if draw.random() < 0.15:
        value = copy.deepcopy(value)
        del at(value, path[:-1])[path[-1]]
        return f"{name} left out", value
    word = sorted(ODD)[draw.integers(len(ODD))]
    return f"{name} is {word}", replaced(value, path, ODD[word])


def _edited(text: str, suffix: str, draw: np.random.Generator, odd: bool) -> str | None:
    """A text file with one value edited; None if it has none."""
    if suffix == ".json":
        table = json.loads(text)
        paths = list(leaves(table))
        path = paths[draw.integers(len(paths))] if paths else ()
        if odd or not path:
            return json.dumps(odd_json(table, draw)[1]) if path else None
        return json.dumps(replaced(table, path, near(at(table, path))))
    if suffix == ".jsonl":
        lines = text.splitlines()
        line = int(draw.integers(len(lines)))
        lines[line] = _edited(lines[line], ".json", draw, odd) or lines[line]
        return "\n".join(lines) + "\n"
    numbers = list(re.finditer(r"(?<== )-?\d+", text))
    if not numbers:
        return None
    found = numbers[draw.integers(len(numbers))]
    new = str(ODD["a huge integer"]) if odd else str(int(found[0]) + 1)
    return text[: found.start()] + new + text[found.end() :]


def _flip(data: bytes, draw: np.random.Generator) -> bytes:
    place, changed = int(draw.integers(len(data))), bytearray(data)
    changed[place] ^= 1 << int(draw.integers(8))
    return bytes(changed)


def _line(data: bytes, draw: np.random.Generator) -> bytes | None:
    lines = data.splitlines(keepends=True)
    if len(lines) < 2:
        return None
    del lines[draw.integers(len(lines))]
    return b"".join(lines)


def garbles(path: Path) -> dict[str, Callable[[np.random.Generator], bytes | None]]:
    """What can be done to a file: its new bytes, or None where that changes nothing."""
    data = path.read_bytes()
    done: dict[str, Callable[[np.random.Generator], bytes | None]] = {
        "bit flipped": lambda draw: _flip(data, draw),
        "truncated": lambda draw: data[: draw.integers(1, len(data))],
        "emptied": lambda draw: b"",
    }
    if path.suffix in TEXT:

        def edit(draw: np.random.Generator, odd: bool) -> bytes | None:
            text = _edited(data.decode(), path.suffix, draw, odd)
            return None if text is None else text.encode("utf-8", "surrogatepass")

        done["line removed"] = lambda draw: _line(data, draw)
        done["value edited"] = lambda draw: edit(draw, False)
        done["odd value"] = lambda draw: edit(draw, True)
    return done
