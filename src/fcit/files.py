"""Files are written whole or not at all, and read as text in one way."""

import codecs
import importlib
import json
import os
import pkgutil
import re
import shutil
import tomllib
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from os.path import lexists
from pathlib import Path
from typing import Any
from uuid import uuid4

from fcit.types import FcitError

ASIDE = ".aside-"


@contextmanager
def written_aside(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path` in one step, once the
    disk has it (durable; a cache can do without)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{ASIDE}{uuid4().hex[:12]}.part")
    try:
        yield aside
        if durable:
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:  # of a full disk it names no file
        error.filename = str(path) if error.filename in (None, str(aside)) else error.filename
        raise
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def private(folder: Path) -> Iterator[None]:
    """Make a folder, if there is none; what is written meanwhile is for its owner alone, whatever the
    umask: files get mode 600, folders 700. Processes that start meanwhile inherit this."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    umask = os.umask(0o077)
    try:
        folder.mkdir(exist_ok=True)
        yield
    finally:
        os.umask(umask)


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Keep other processes from working on a folder meanwhile. The lock ends with its process.

    Raises FcitError, with `what` the folder holds, where another one has it.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    with os.fdopen(os.open(folder / ".lock", os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FcitError(f"{folder}: another fcit is working on this {what}") from None
        yield


def is_plain_name(text: str) -> bool:
    """Whether a text can name a file or folder below another: one printable name, no path, not hidden."""
    plain = text == Path(text).name and text.isprintable()
    return plain and bool(text) and not text.startswith(".") and "\\" not in text


def home(text: str | Path) -> Path:
    """A path with its ~ resolved. Raises FcitError where this machine knows no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise FcitError(f"{text}: no such home folder; give the whole path") from None


def check_new_folder(path: Path) -> None:
    """Raise FcitError when `path` exists and is not an empty folder, or is where a disk is mounted."""
    if os.path.ismount(path):
        raise FcitError(f"{path}: a disk is mounted here; name a new folder in it")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FcitError(f"{path}: already exists and is not empty; choose another folder")


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; on success it takes the place of `path` in one step. Raises
    FcitError as `check_new_folder` does."""
    path = path.resolve()
    check_new_folder(path)
    aside = path.with_name(f"{ASIDE}{uuid4().hex[:12]}.part")
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write JSON, whole or not at all; the same value gives the same bytes."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


class BadValue(Exception):  # noqa: N818 (no ValueError: that is what cut-off JSON raises)
    """A value in a JSON file that has no one meaning; the message says which."""


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise BadValue(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return table


def _whole(digits: str) -> int:
    if len(digits) > 1000:
        raise BadValue(f"a whole number of {len(digits)} digits")
    return int(digits)


JSON = json.JSONDecoder(object_pairs_hook=_table, parse_int=_whole)
"""Reads all JSON. Raises BadValue for a key that stands twice in an object, and endless numbers."""


@contextmanager
def reading(path: Path, what: str = "file", place: str = "") -> Iterator[None]:
    """Raises FcitError naming the file, and the place in it, where it cannot be read or is not valid."""
    where = f"{path}{place}"
    try:
        yield
    except FileNotFoundError:
        raise FcitError(f"{path}: no such {what}") from None
    except RecursionError:
        raise FcitError(f"{where}: too deeply nested") from None
    except json.JSONDecodeError as error:
        raise FcitError(f"{where}: not valid JSON: {error.msg if place else error}") from None
    except tomllib.TOMLDecodeError as error:
        raise FcitError(f"{path}: not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise FcitError(f"{path}: cannot be read: {_encoding_fault(path)}") from None
    except OSError as error:
        raise FcitError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (BadValue, ValueError) as error:
        raise FcitError(f"{where}: {error}") from None


def _encoding_fault(path: Path) -> str:
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "it is in UTF-16 or UTF-32; save it in UTF-8"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return f"line {line} is not in UTF-8 (byte {data[error.start]:#04x}); save it in UTF-8"
    return "it has just changed"


def read_text(path: Path, what: str = "file") -> str:
    """Read a text file in UTF-8; a byte order mark is left out. Raises FcitError naming the file, and
    `what` it should be where it is missing."""
    with reading(path, what):
        return path.read_text(encoding="utf-8-sig")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises FcitError naming the file, and the line where it is not valid."""
    with reading(path):
        if not (text := read_text(path)).strip():
            raise BadValue("is empty")
        return JSON.decode(text)


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, each with the number of its line; blank lines are skipped.

    Raises FcitError naming the file and line at fault.
    """
    with reading(path), path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            with reading(path, place=f", line {number}"):
                value = JSON.decode(line)
            if not isinstance(value, dict):
                raise FcitError(f"{path}, line {number}: must be an object, not {kind(value)}")
            yield number, value


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines. Raises FcitError naming the file and the line at fault."""
    return [row for _, row in json_lines(path)]


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return "null" if value is None else kinds.get(type(value), "a number")


def read_toml(path: Path, what: str = "file") -> dict[str, Any]:
    """Read a TOML file. Raises FcitError naming the file, and `what` it should be where it is missing."""
    with reading(path):
        return parse_toml(read_text(path, what))


def parse_toml(text: str) -> dict[str, Any]:
    """TOML without U+0000, which no path may hold. Raises ValueError, or RecursionError."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python's own, of int()
        raise ValueError("holds a whole number of more than 4300 digits") from None
    if "\\u0000" in json.dumps(table, default=str):
        raise ValueError("holds U+0000, which is no character")
    return table


def clean(text: str) -> str:
    """A person's text in Unicode's composed form (NFC), without a byte order mark. Raises FcitError where
    it holds what is no character: U+0000, or half a surrogate pair (bytes of another encoding)."""
    if fault := re.search("[\0\ud800-\udfff]", text):
        raise FcitError(
            f"holds U+{ord(fault.group()):04X}, which is no character; was it in another encoding?"
        )
    return unicodedata.normalize("NFC", text.removeprefix("\ufeff"))


def below(folder: Path, name: str) -> Path:
    """The path of a name below a folder: as it is written, or in the Unicode form (NFC, NFD) in which
    it is there."""
    if name.isascii():
        return folder / name
    paths = [folder / name, *(folder / unicodedata.normalize(f, name) for f in ("NFC", "NFD"))]
    return next(filter(lexists, paths), paths[0])


def sweep_aside(folder: Path) -> None:
    """Remove the temporary files of interrupted writers in `folder` and below."""
    for file in folder.rglob(f"{ASIDE}*.part"):
        remove = shutil.rmtree if file.is_dir() else os.unlink
        with suppress(OSError):
            remove(file)


def modules(package: str, helpers: Collection[str]) -> list[str]:
    """The names of a package's files, without those of its helpers."""
    path = importlib.import_module(package).__path__
    return sorted({module.name for module in pkgutil.iter_modules(path)} - set(helpers))
