"""The doctor names every part of the machine, and what a missing one switches off."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from fcit.cli.doctor import GB, Finding, doctor, findings

PARTS = ("python", "fcit", "torch", "transformers", "safetensors", "numpy", "pillow")
PARTS += ("cores", "memory", "GPU", "Java", "Flower", "PEFT", "serve", "trackers")


def found() -> dict[str, Finding]:
    return {one.part: one for one in findings()}


def test_every_part_is_named_once_with_what_was_found() -> None:
    parts = [one.part for one in findings()]
    wanted = [*PARTS, "disk (cache)", "disk (here)"]
    if not hasattr(os, "sysconf"):
        wanted.remove("memory")
    assert parts == wanted
    assert all(one.found for one in findings())


def test_a_missing_java_says_what_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    java = found()["Java"]
    assert java.found == "none"
    assert "captions" in java.missing
    assert "reference" in java.missing


def test_a_java_that_is_there_switches_nothing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}")
    assert found()["Java"] == Finding("Java", "/opt/java")


def test_missing_packages_say_what_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "--engine flower" in found()["Flower"].missing
    assert found()["PEFT"].found == "none"
    assert "tracking.to" in found()["trackers"].missing


def test_a_cache_that_is_not_there_yet_is_judged_by_its_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FCIT_CACHE", str(tmp_path / "not" / "yet"))
    disk = found()["disk (cache)"]
    assert str(tmp_path / "not" / "yet") in disk.found
    assert "GB free" in disk.found
    assert not (tmp_path / "not").exists()


def test_a_full_disk_and_a_locked_one_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": GB})()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "2 GB" in found()["disk (here)"].missing
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "FCIT_CACHE" in found()["disk (cache)"].missing


def test_the_command_prints_them_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    doctor()
    shown = capsys.readouterr().out
    assert all(part in shown for part in PARTS if part != "memory")
    assert "good" in shown and "[green]" not in shown
