"""Paths in a recipe: the keys that hold them, and where relative ones start."""

import os
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
        path = anchored_path(value, folder) if isinstance(value, str) and value else ""
        return path if path and (always or lexists(path)) else value

    for path in PATHS:
        section, key = path.split(".")
        values = table.get(section)
        if not isinstance(values, dict) or key not in values:
            continue
        if section != "method" or is_file(str(values[key])):
            values[key] = start(values[key], section != "model")


def anchored_path(path: str, folder: Path) -> str:
    """The whole path that a relative path in a folder means."""
    return str((folder / home(path)).resolve())


def require_own_files(table: Mapping[str, Any], path: Path) -> None:
    """Raise FcitError where the config.toml of a run's folder names a Python file that may be the code of
    whoever made the folder: one at another than its whole path, as fcit writes it; one inside the folder;
    one on the network; and where the folder is another user's, that of another user."""
    method, data = (table.get(name) for name in ("method", "data"))
    name = str(method.get("name", "")) if isinstance(method, Mapping) else ""
    rules = data.get("rules") if isinstance(data, Mapping) else None
    files = [("data.rules", file) for file in rules.values()] if isinstance(rules, Mapping) else []
    for key, file in [("method.name", name), *files] if is_file(name) else files:
        own = Path(str(file))
        whole = (
            own.is_absolute()
            and ".." not in own.parts
            and own.parts[1:2] not in (("proc",), ("dev",))
        )
        elsewhere = own.drive.startswith(("\\\\", "//"))
        inside = own.resolve().is_relative_to(path.resolve().parent)
        if not whole or elsewhere or inside or (_of_others(path) and _of_others(own)):
            raise FcitError(
                f"{path}: {key}: {file}: a run's folder must not bring code; a Python file is run only "
                "by its whole path, outside this folder, and in another user's folder only if it is yours"
            )


def _of_others(file: Path) -> bool:
    """Whether a file is another user's (where the system knows)."""
    try:
        return os.name == "posix" and file.stat().st_uid != os.getuid()
    except OSError:  # it is not there
        return False


def require_installed(name: str, source: str) -> None:
    """Raise FcitError where a method is a file of one's own: a server's recipe must not make a client run
    one."""
    if is_file(name):
        raise FcitError(
            f"{source}: method.name: {name}: a client runs no file that the server names; copy it into "
            f'fcit\'s folder methods on every machine, and set method.name = "{title(name)}"'
        )
