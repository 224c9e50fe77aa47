"""Kills, damaged folders, odd requests and odd replies: a few of the cases of benchmarks/faults.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kinds share one run and its data."""
    return tmp_path_factory.mktemp("faults")


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("kills", 1), ("run-folders", 6), ("data-folders", 8), ("model-folders", 4),
        ("requests", 60), ("replies", 80),
    ],
)  # fmt: skip
def test_no_fault_gives_another_result_or_a_traceback(
    kind: str, count: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import faults

    function, usual = faults.kinds()[kind]
    cases = list(function(folder, count, 0))
    assert 0 < len(cases) <= count <= usual
    assert not [case for case in cases if case.outcome in faults.BAD]


def test_damage_changes_a_file_and_says_what_it_cannot_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import faults

    for name, text in (("a.json", '{"a": [1, "yes"]}'), ("b.jsonl", '{"a": 1}\n{"a": 2}\n')):
        file = tmp_path / name
        file.write_text(text)
        for how in (*faults.garbles(file), "removed"):
            file.write_text(text)
            done = faults.damage(file, how, faults.draw(0, name, how))
            assert done == (not file.exists() or file.read_bytes() != text.encode())
            assert done or how == "line removed"
    assert faults.judge(-1, "KeyError()", "x", bool) == (faults.TRACEBACK, "KeyError()")
    assert faults.judge(2, "fcit: /a/x.json: is odd", "x.json", bool)[0] == faults.REFUSED
    assert faults.judge(2, "fcit: it is odd", "x.json", bool)[0] == faults.UNNAMED
    assert faults.judge(0, "", "x.json", lambda: False)[0] == faults.OTHER


def test_odd_replies_are_cases_where_they_can_be_made_and_disco_lda_gets_odd_tokens(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import faults_wire

    monkeypatch.setattr(faults_wire, "METHODS", ("disco_lda",))
    wheres = [case.where for case in faults_wire.replies(folder, 12, 0)]
    assert {where.split(": ")[1] for where in wheres} == {"token", "update"}

    def impossible(one: object, generator: object) -> tuple[str, object]:
        raise RuntimeError("no such tensor")

    monkeypatch.setattr(faults_wire, "_odd_reply", impossible)
    assert list(faults_wire.replies(folder, 3, 0)) == []
    monkeypatch.setattr(faults_wire, "_odd_reply", lambda one, generator: ("", one))
    assert list(faults_wire.replies(folder, 3, 0)) == []


def test_the_kinds_share_a_cache_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import faults

    caches: list[Path] = []

    def kind(folder: Path, count: int, seed: int) -> list:
        caches.append(Path(os.environ["FCIT_CACHE"]))
        assert caches[-1].is_dir()
        return []

    monkeypatch.setattr(faults, "kinds", lambda: {"one": (kind, 1), "other": (kind, 1)})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["faults.py"])
    monkeypatch.setenv("FCIT_CACHE", "")  # restored at the end of the test
    monkeypatch.delenv("FCIT_CACHE")
    assert faults.main() == 0
    assert len(set(caches)) == 1 and len(caches) == 2
    assert list(tmp_path.iterdir()) == []
