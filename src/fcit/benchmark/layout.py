"""Where a data folder has its instructions and images: the layouts that people have."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from unicodedata import normalize

from fcit.files import below
from fcit.types import FcitError

INSTRUCTIONS = ("instructions", "instruction")
IMAGES = ("datasets", "dataset")
PARTITIONS = "partitioned_data"
"""The folder of a data folder that has the published split."""
_RECORDS = re.compile(r"(train|test).*\.jsonl?", re.DOTALL)


def instructions(root: Path) -> Path:
    """The folder with one folder of records per dataset: `instructions/`, `instruction/`, or, where there
    is neither, the root itself if it holds such folders (UCIT, MLLM-CL). Raises FcitError for both."""
    there = [root / name for name in INSTRUCTIONS if (root / name).is_dir()]
    if len(there) > 1:
        raise FcitError(f"{root}: has instructions/ and instruction/; keep one of them")
    return there[0] if there else root if any(_record_folders(root)) else root / INSTRUCTIONS[0]


def is_flat(root: Path) -> bool:
    """Whether the datasets' folders stand in the root itself."""
    return instructions(root) == root


def images(root: Path) -> tuple[Path, ...]:
    """The folders that image paths start at, tried in order: `datasets/` or `dataset/`; beside datasets'
    folders also the root (paths with `datasets/` in front). Empty: at each dataset's own folder."""
    there = tuple(root / name for name in IMAGES if (root / name).is_dir())
    if is_flat(root):
        return (*there, root) if there else ()
    return there or (root / IMAGES[0],)


def folders(root: Path) -> list[str]:
    """The names of the datasets' folders, in order."""
    parent = instructions(root)
    paths = _record_folders(root) if parent == root else parent.glob("[!.]*")
    names = (normalize("NFC", path.name) for path in paths if path.is_dir())
    return sorted(name for name in names if name not in ("__MACOSX", PARTITIONS))


def _record_folders(root: Path) -> Iterator[Path]:
    """The folders of the root that hold records or a dataset.toml."""
    other = {*INSTRUCTIONS, *IMAGES, PARTITIONS}
    for path in root.glob("[!.]*"):
        if path.name not in other and path.is_dir() and holds_records(path):
            yield path


def holds_records(folder: Path) -> bool:
    """Whether a folder has a file that is called like one of records, or a dataset.toml."""
    try:
        if any(_RECORDS.fullmatch(path.name) for path in folder.iterdir()):
            return True
    except (PermissionError, FileNotFoundError):  # someone else's folder, or it has just gone
        pass
    try:
        return (folder / "dataset.toml").exists()
    except PermissionError:
        return False


def as_lines(path: Path) -> Path:
    """A file of records, or the one that ends in .jsonl in its place. Raises FcitError for both."""
    lines = path.with_suffix(".jsonl")
    if lines != path and lines.is_file() and path.is_file():
        raise FcitError(
            f"{path}: {lines.name} is beside it, and only one can be read; move one away"
        )
    return lines if lines.is_file() else path


def root_of(folder: Path) -> Path:
    """The data folder that a dataset's folder belongs to."""
    return folder.parent.parent if folder.parent.name in INSTRUCTIONS else folder.parent


def require_folder(root: Path) -> None:
    """Raise FcitError where a path is not that of a data folder."""
    if not root.is_dir():
        raise FcitError(f"{root}: no such folder")
    if not _is_data_folder(root):
        inner = next((path for path in sorted(root.glob("[!.]*")) if _is_data_folder(path)), None)
        raise FcitError(
            f"{root}: this is not a data folder (it has no instructions/ and datasets/)"
            + (f"; did you mean {inner}?" if inner else "")
        )


def _is_data_folder(path: Path) -> bool:
    return any((path / name).is_dir() for name in INSTRUCTIONS + IMAGES) or is_flat(path)


def locate(where: Sequence[Path], image: str) -> Path:
    """The path of an image: in the first of these folders that has it (in none: where it should be)."""
    paths = [below(folder, image) for folder in where]
    if len(paths) == 1:
        return paths[0]
    return next(filter(_is_file, paths), paths[0])


def _is_file(path: Path) -> bool:
    """Whether a file is there, as far as this user may know."""
    try:
        return path.is_file()
    except OSError:  # it is in a folder that this user may not read
        return False
