"""The recipes that come with fcit, by name: `demo`, `paper/task-hom`."""

from pathlib import Path

import fcit
from fcit.types import FcitError, did_you_mean


def recipes() -> dict[str, Path]:
    """Their files by name."""
    folder = Path(fcit.__file__).parent / "recipes"
    files = sorted(folder.rglob("*.toml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def find(path: Path, what: str = "recipe") -> tuple[Path, Path]:
    """The file of a recipe, and the folder at which its relative paths start.

    A name that is no file is that of a recipe of ours, whose paths start in the working folder. Raises
    FcitError for a name that is neither.
    """
    files, name = recipes(), path.as_posix()
    if path.is_file() or path.is_absolute() or (path.suffix and name not in files):
        return path, path.parent
    if name not in files:
        if path.exists():
            raise FcitError(f"{path}: is a folder, not a {what}")
        close = did_you_mean(name, files)
        raise FcitError(
            f"{path}: no such {what}{close or '; fcit recipe lists those that come with fcit'}"
        )
    return files[name], Path.cwd()
