"""The runs kept in benchmarks/results are whole, are the sweep's, and make the documents' tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcit.runs import sweep
from fcit.runs.sweep import Status

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks" / "results" / "comparison"


@pytest.fixture(scope="module")
def statuses() -> list[Status]:
    """Reading them compares digests, log, matrix and plan with each other and with the recipes."""
    return sweep.survey(sweep.read(ROOT / "recipes" / "mini" / "comparison.toml", KEPT))


def test_all_kept_runs_are_finished_runs_of_the_sweep(statuses: list[Status]) -> None:
    finished = {status.run.folder for status in statuses if status.finished}
    kept = {file.parent for file in KEPT.glob("*/*/*/config.toml")}
    assert kept and kept == finished


def test_the_documents_have_the_differences_of_the_kept_runs(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import paired

    page = (ROOT / "docs" / "methods" / "disco_lda.md").read_text("utf-8")
    rows = paired.compared(KEPT, "disco_lda", "disco")
    rows += paired.closed(KEPT, "disco_lda", "disco", ["individual", "joint"])
    assert len(rows) == 8
    for row in rows:
        assert row in page, "docs/methods/disco_lda.md: other figures than benchmarks/results has"
