"""Paths in a recipe: the keys that hold them, and where relative ones start."""

from collections.abc import Mapping
from datetime import date, time
from os.path import lexists
from pathlib import Path, PurePath
from typing import Any

from fcit.files import home
from fcit.methods import is_file, title
from fcit.types import FcitError

PATHS = [
    "data.root",
    "data.images",
    "data.rules",
    "evaluation.general",
    "method.name",
    "model.path",
    "model.identity",
]
"""The keys that hold paths."""


def anchor(table: dict[str, Any], folder: Path) -> None:
    """Make a recipe's relative paths start at a folder (a name that is no path stays a hub id, or one of
    fcit's methods)."""

    def start(value: Any, always: bool) -> Any:
        if isinstance(value, PurePath | date | time):  # TOML reads 2025-01-31 as a date
            value = str(value)
        if isinstance(value, list | tuple):
            return [start(entry, always) for entry in value]
        if isinstance(value, Mapping):
            return {key: start(entry, always) for key, entry in value.items()}
        path = (folder / home(value)).resolve() if isinstance(value, str) and value else None
        return str(path) if path and (always or lexists(path)) else value

    for path in PATHS:
        section, key = path.split(".")
        values = table.get(section)
        if not isinstance(values, dict) or key not in values:
            continue
        if section != "method" or is_file(str(values[key])):
            values[key] = start(values[key], section != "model")


def method_at(name: str, folder: Path) -> str:
    """A method's name as a recipe in this folder gives it, with a file's path made absolute."""
    anchor(table := {"method": {"name": name}}, folder)
    return table["method"]["name"]


def python_files(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The files of one's own that a recipe lets fcit run, each with its key."""
    method, data = (table.get(name) for name in ("method", "data"))
    name = str(method.get("name", "")) if isinstance(method, Mapping) else ""
    rules = data.get("rules") if isinstance(data, Mapping) else None
    files = [
        ("data.rules", str(file)) for file in (rules.values() if isinstance(rules, Mapping) else ())
    ]
    return [("method.name", name), *files] if is_file(name) else files


def require_installed(method: Any, source: str) -> None:
    """Raise FcitError where the table of a recipe's `[method]` names a file: a server's recipe must not
    make a client run one."""
    name = str(method.get("name", "")) if isinstance(method, Mapping) else ""
    if is_file(name):
        raise FcitError(
            f"{source}: method.name: {name}: a client runs no file that the server names; copy it into "
            f'fcit\'s folder methods on every machine, and set method.name = "{title(name)}"'
        )
