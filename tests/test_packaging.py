"""The wheel holds every data file, the sdist what a clone has, and the metadata say what fcit is."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fcit"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
LEFT_OUT = {".git", ".ci", ".venv", "runs", "build", "dist", "shared"}
"""Folders beside pyproject.toml that no sdist needs."""


def data_files() -> set[str]:
    """All files of the package but Python's; recipes/ is a link to the folder of the repository."""
    found = [
        Path(folder) / name
        for folder, _, names in os.walk(PACKAGE, followlinks=True)
        for name in names
    ]
    return {
        path.relative_to(PACKAGE).as_posix() for path in found if path.suffix not in (".py", ".pyc")
    }


def tracked() -> list[str]:
    """The files that git knows here."""
    if not shutil.which("git"):
        pytest.skip("no git")
    ours = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if ours.returncode or not ours.stdout:
        pytest.skip("no clone")
    return ours.stdout.splitlines()


def test_the_wheel_is_told_of_every_data_file() -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["fcit"]
    told = {
        path.relative_to(PACKAGE).as_posix()
        for pattern in patterns
        for start, rest in [_through_links(pattern)]
        for path in start.glob(rest)
        if path.is_file()
    }
    assert data_files() <= told
    assert not [
        one for one in patterns if not list(_through_links(one)[0].glob(_through_links(one)[1]))
    ]


def _through_links(pattern: str) -> tuple[Path, str]:
    """A folder and a pattern in it: Path.glob does not follow links below its start."""
    first, slash, rest = pattern.partition("/")
    return (PACKAGE / first, rest) if slash else (PACKAGE, pattern)


def test_the_sdist_is_told_of_every_folder_and_file() -> None:
    manifest = (ROOT / "MANIFEST.in").read_text("utf-8")
    told = set(re.findall(r"^graft (\S+)$", manifest, re.M))
    told |= {
        name for line in re.findall(r"^include (.+)$", manifest, re.M) for name in line.split()
    }
    told |= {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", "MANIFEST.in"}
    ours = tracked()
    assert {line.split("/")[0] for line in ours} - LEFT_OUT == told


def test_the_metadata_say_what_fcit_is() -> None:
    assert PROJECT["license"] == "Apache-2.0" and (ROOT / "LICENSE").is_file()
    assert {"Repository", "Documentation", "Changelog", "Issues"} <= set(PROJECT["urls"])
    assert all(url.startswith("https://") for url in PROJECT["urls"].values())
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {lowest}" in PROJECT["classifiers"]
    assert not any("License ::" in one for one in PROJECT["classifiers"])  # `license` says it
    assert PROJECT["keywords"] and PROJECT["description"]


@pytest.mark.slow
def test_sdist_and_wheel_hold_what_they_should_and_the_wheel_runs_anywhere(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    ours = tracked()
    for line in ours:
        (tmp_path / "clone" / line).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / line, tmp_path / "clone" / line, follow_symlinks=False)
    run = Path("benchmarks/results/comparison/task-hom/disco/seed0")
    ignored = [
        run / "predictions/1/IconQA.jsonl",
        run / "state/a.safetensors",
        run / "partition.json",
    ]
    for file in ignored:  # what a sweep that goes on there leaves
        (tmp_path / "clone" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clone" / file).write_text("{}")
    build = "import setuptools.build_meta as b; b.build_{}({!r})"
    for kind, folder in (("sdist", tmp_path / "clone"), ("wheel", tmp_path / "fcit")):
        done = subprocess.run(
            [sys.executable, "-c", build.format(kind, str(tmp_path))],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        if kind == "sdist":  # the wheel is made from it, as pip does
            (packed,) = tmp_path.glob("*.tar.gz")
            with tarfile.open(packed) as archive:
                archive.extractall(tmp_path, filter="data")
            packed.with_name(packed.name.removesuffix(".tar.gz")).rename(tmp_path / "fcit")
    wanted = {line for line in ours if line.split("/")[0] not in LEFT_OUT}
    assert not [line for line in wanted if not (tmp_path / "fcit" / line).exists()]
    assert not [file for file in ignored if (tmp_path / "fcit" / file).exists()]
    floors = [sys.executable, "-m", "pytest", "-n0", "tests/test_floors.py"]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(floors, cwd=tmp_path / "fcit", capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        said = email.message_from_bytes(archive.read(metadata))
    assert {f"fcit/{name}" for name in data_files()} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "tools", "benchmarks"))]
    assert said["License-Expression"] == "Apache-2.0"
    assert said["Description-Content-Type"] == "text/markdown"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    (tmp_path / "empty").mkdir()
    small = ["federation.clients=1", "federation.per_round=1", "federation.rounds=1"]
    small += ["data.train=20", "data.test=4", "evaluation.max_new_tokens=1"]
    small += ['setting.order=["CLEVR-Math"]', "federation.workers=1"]
    words = [sys.executable, "-P", "-m", "fcit", "run", "demo", *(f"--set={one}" for one in small)]
    env["PYTHONPATH"] = str(tmp_path / "installed")
    done = subprocess.run(words, cwd=tmp_path / "empty", capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [path.name for path in (tmp_path / "empty").glob("runs/*")] == ["task-hom-disco-seed0"]
