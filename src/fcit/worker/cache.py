"""The cache folder, and digests of fcit's own files: of the mini suite, and of all code."""

import hashlib
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import fcit
from fcit import suite
from fcit.files import home


def cache_folder() -> Path:
    """The cache folder: $FCIT_CACHE, or `fcit` in the user's cache folder."""
    if os.environ.get("FCIT_CACHE"):
        return home(os.environ["FCIT_CACHE"])
    if sys.platform == "darwin":
        return home("~/Library/Caches/fcit")
    return home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "fcit"


def made_by() -> str:
    """A digest of the mini suite's files and of `seeds`: no version reads another's suite."""
    room = Path(suite.__file__).parent
    files = (file for file in room.iterdir() if file.suffix in (".py", ".toml", ".txt"))
    return _digest([*sorted(files), room.parent / "seeds.py"])


@cache
def code() -> str:
    """A digest of fcit's Python files: two commits of one version differ in it."""
    return _digest(sorted(Path(fcit.__file__).parent.rglob("*.py")))


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]
