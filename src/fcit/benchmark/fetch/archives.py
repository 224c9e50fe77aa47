"""Zip and tar archives, read without trust: no path outside, no links, a bound on what they become."""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from fcit.files import written_aside
from fcit.types import FcitError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
TIMES, MORE = 200, 1 << 30
"""An archive may become so many times as large, and so many bytes more; what grows further is a trap."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One file of an archive; it can be read until the next one is asked for."""

    name: str
    """A plain path, with slashes."""
    file: IO[bytes]


def stem(path: str) -> str:
    """The path of an archive without what says that it is one; "" for another file."""
    ending = max((end for end in ENDINGS if path.lower().endswith(end)), key=len, default="")
    return path[: -len(ending)] if ending else ""


def members(path: Path, title: str) -> Iterator[Member]:
    """The files of an archive in its order, without links and devices.

    title: what messages call it. Raises FcitError where it is damaged or encrypted, and for a name that
    leaves the folder it would be unpacked in.
    """
    with faults(title):
        with path.open("rb") as file:
            zipped = file.read(4) in (b"PK\3\4", b"PK\5\6")
        yield from _zip(path, title) if zipped else _tar(path, title)


def _zip(path: Path, title: str) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            name = inside(info.filename, title)
            if plain and not info.is_dir():
                if info.flag_bits & 1:
                    raise FcitError(f"{title}: is encrypted")
                with archive.open(info) as file:
                    yield Member(name, file)


def _tar(path: Path, title: str) -> Iterator[Member]:
    with tarfile.open(path, "r|*") as archive:
        for info in archive:
            name = inside(info.name, title)
            if info.isreg() and (file := archive.extractfile(info)):
                with file:
                    yield Member(name, file)


def inside(name: str, title: str) -> str:
    """A path in its plain form. Raises FcitError where it would leave the folder it is unpacked in."""
    windows = PureWindowsPath(name)
    if windows.anchor or ".." in windows.parts or "\0" in name:
        raise FcitError(f"{title}: {name!r} in it leaves the folder; nothing of it is used")
    return str(PurePosixPath(name))


@contextmanager
def faults(title: str) -> Iterator[None]:
    """Raises FcitError, naming the archive, for what a damaged one makes Python's modules raise."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise FcitError(f"{title}: cannot be unpacked: {error}") from None


class Unpacking:
    """Writes files of one archive, and counts their bytes."""

    def __init__(self, title: str, size: int):
        self.title, self.left = title, TIMES * size + MORE

    def write(self, member: Member, path: Path) -> None:
        """Write a file whole. Raises FcitError for more bytes than an honest archive holds."""
        with (
            faults(self.title),
            written_aside(path, durable=False) as aside,
            aside.open("wb") as out,
        ):
            while chunk := member.file.read(CHUNK):
                self.left -= len(chunk)
                if self.left < 0:
                    raise FcitError(
                        f"{self.title}: unpacks to more than {TIMES} times its size; it is not unpacked"
                    )
                out.write(chunk)
