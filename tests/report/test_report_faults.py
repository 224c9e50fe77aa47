"""Faults and epsilon stand on the page where there are any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fcit.files import read_lines, write_lines
from fcit.report.page import write

Build = Callable[..., Path]


def test_the_page_names_faults_and_rules_not_kept_to(
    build: Build, undrawn: None, tmp_path: Path
) -> None:
    run = build("d")
    rows = read_lines(run / "log.jsonl")
    rows[1]["faults"] = [{"client": 3, "kind": "nonfinite", "detail": "holds <numbers>"}]
    rows[2]["notes"] = ["0: 2 clients are too few for median; mean"]
    write_lines(run / "log.jsonl", rows)
    page = write([run], tmp_path / "out").read_text(encoding="utf-8")
    assert "client 3, nonfinite: holds &lt;numbers&gt;" in page
    assert "2 clients are too few for median; mean" in page


def test_the_page_gives_epsilon_and_says_where_there_is_no_bound(
    build: Build, undrawn: None, tmp_path: Path
) -> None:
    spent = {"epsilon": None, "epsilon_updates": 12.345, "epsilon_tokens": None, "delta": 1e-5}
    page = write([build("d", privacy=spent)], tmp_path / "out").read_text(encoding="utf-8")
    assert "ε = unbounded at δ = 1e-05 (updates 12.35, identity tokens unbounded)" in page


def test_a_page_without_either_has_no_such_section(
    build: Build, undrawn: None, tmp_path: Path
) -> None:
    page = write([build("d")], tmp_path / "out").read_text(encoding="utf-8")
    assert "Faults" not in page
    assert "Privacy" not in page
