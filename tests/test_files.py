"""Whole files or none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fcit.files import (
    folder_aside,
    private,
    read_json,
    read_lines,
    sweep_aside,
    write_json,
    write_lines,
    written_aside,
)
from fcit.types import FcitError


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(KeyboardInterrupt), written_aside(path) as aside:
        aside.write_text("half")
        raise KeyboardInterrupt
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def full(self: Path, *_: object, **__: object) -> None:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left") as failed:
        write_json(path, {"new": 2})
    assert failed.value.filename == str(path)
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_names_of_a_file_system_can_be_written(tmp_path: Path) -> None:
    name = "a" * 250 + ".json"
    write_json(tmp_path / name, {"a": 1})
    with folder_aside(tmp_path / ("b" * 255)) as folder:
        write_json(folder / name, {"b": 2})
    assert read_json(tmp_path / name) == {"a": 1}
    assert read_json(tmp_path / ("b" * 255) / name) == {"b": 2}


def test_what_cannot_be_written_has_its_own_name_not_the_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OSError, match="Is a directory") as failed:
        write_json(tmp_path / "a.json", {})
    assert failed.value.filename == str(tmp_path / "a.json")


def test_temporary_names_never_look_like_results(tmp_path) -> None:
    with written_aside(tmp_path / "a.safetensors") as aside:
        assert aside.suffix != ".safetensors"
        aside.write_text("x")


def test_a_new_folder_may_be_named_by_a_link_and_none_where_a_disk_is_mounted(tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    left = tmp_path / f".aside-{os.getpid()}-elsewhere.part"
    left.mkdir()  # of a killed process with this one's number, as all have in containers
    with folder_aside(tmp_path / "link") as aside:
        (aside / "a").write_text("x")
    assert (tmp_path / "elsewhere" / "a").read_text() == "x"
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(FcitError, match="a disk is mounted here"), folder_aside(Path("/")):
        pass


def test_what_a_killed_writer_left_is_swept(tmp_path) -> None:
    left = tmp_path / "deep" / ".aside-1-a.json.part"
    left.parent.mkdir()
    left.write_text("half")
    (tmp_path / "kept.part").write_text("a person's own")
    export = tmp_path / ".aside-2-export.part"
    (export / "base").mkdir(parents=True)
    sweep_aside(tmp_path)
    assert not left.exists() and not export.exists()
    assert (tmp_path / "kept.part").exists()


def test_unreadable_json_is_named_with_its_place(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    write_lines(path, [{"a": 1}, {"b": "ü"}])
    assert read_lines(path) == [{"a": 1}, {"b": "ü"}]
    path.write_text('{"a": 1}\n{"b": \n')
    with pytest.raises(FcitError, match=r"a\.jsonl, line 2"):
        read_lines(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FcitError, match=r"a\.jsonl"):
        read_json(path)
    with pytest.raises(FcitError, match="no such file"):
        read_json(tmp_path / "gone.json")


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_what_is_private_is_for_its_owner_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with private(tmp_path / "runs" / "first"):
            write_json(tmp_path / "runs" / "first" / "deep" / "a.json", 1)
        write_json(tmp_path / "b.json", 1)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    public = {"runs": 0o777, "b.json": 0o666}
    assert modes == {"first": 0o700, "deep": 0o700, "a.json": 0o600} | public
