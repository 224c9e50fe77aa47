"""The cache folder, and the version of the mini suite."""

import hashlib
import os
import sys
from pathlib import Path

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
    digest = hashlib.sha256()
    room = Path(suite.__file__).parent
    files = (file for file in room.iterdir() if file.suffix in (".py", ".toml", ".txt"))
    for file in [*sorted(files), room.parent / "seeds.py"]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]
