"""The doctor names every part of the machine, and what a missing one switches off."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from fcit.cli.machine import GB, Finding, doctor, findings

PARTS = ("python", "fcit", "torch", "transformers", "safetensors", "numpy", "pillow")
PARTS += ("cores", "memory", "GPU", "Java", "Flower", "PEFT", "parquet", "serve")
PARTS += ("privacy", "bitsandbytes", "trackers")


def parts() -> dict[str, Finding]:
    return {finding.part: finding for finding in findings()}


def test_every_part_is_named_once_with_what_was_parts() -> None:
    names = [finding.part for finding in findings()]
    wanted = [*PARTS, "disk (cache)", "disk (here)"]
    if not hasattr(os, "sysconf"):
        wanted.remove("memory")
    assert names == wanted
    assert all(finding.value for finding in findings())


def test_a_missing_java_says_what_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    java = parts()["Java"]
    assert java.value == "none"
    assert "captions" in java.missing
    assert "reference" in java.missing


def test_a_java_that_is_there_switches_nothing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}")
    assert parts()["Java"] == Finding("Java", "/opt/java")


def test_missing_packages_say_what_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "--engine flower" in parts()["Flower"].missing
    assert parts()["PEFT"].value == "none"
    assert "[privacy] is off" in parts()["privacy"].missing
    assert "model.quantize" in parts()["bitsandbytes"].missing
    assert "tracking.to" in parts()["trackers"].missing


def test_trackers_need_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "accelerate")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1")
    assert parts()["trackers"].value == "none" and "accelerate" in parts()["trackers"].missing


def test_a_cache_that_is_not_there_yet_is_judged_by_its_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FCIT_CACHE", str(tmp_path / "not" / "yet"))
    disk = parts()["disk (cache)"]
    assert str(tmp_path / "not" / "yet") in disk.value
    assert "GB free" in disk.value
    assert not (tmp_path / "not").exists()


def test_a_full_disk_and_a_locked_one_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": GB})()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "2 GB" in parts()["disk (here)"].missing
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "FCIT_CACHE" in parts()["disk (cache)"].missing


def test_the_command_prints_them_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    doctor()
    shown = capsys.readouterr().out
    assert all(part in shown for part in PARTS if part != "memory")
    assert "good" in shown and "[green]" not in shown
