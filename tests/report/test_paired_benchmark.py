"""benchmarks/paired.py: differences of two methods by seed, from run folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcit.types import FcitError
from report.conftest import Build

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


def test_pairs_are_of_one_setting_and_seed(build: Build, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import paired

    for seed, (one, other) in enumerate([(62.0, 60.0), (65.0, 61.0), (66.0, 60.0)]):
        for method, last in (("disco_lda", one), ("disco", other)):
            build(f"task-hom/{method}/seed{seed}", method, seed, last=last, avg=50.0)
    build("cap-hom/disco_lda/seed7", "disco_lda", 7, done=1, last=None)
    row, empty, unfinished = paired.compared(tmp_path, "disco_lda", "disco")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == "task-hom (3)"
    # Student's t of 2, 4 and 6: 4 +- 4.303 * 2 / sqrt(3)
    assert cells[1] == "64.33 - 60.33 = +4.00 (-0.97 to +8.97)"
    assert cells[2] == "50.00 - 50.00 = +0.00 (+0.00 to +0.00)"
    assert cells[-2:] == ["300.0 %", "300.0 %"]
    assert empty == "" and unfinished == "cap-hom, seed7: not finished"


def test_a_method_without_runs_is_named(build: Build, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import paired

    build("task-hom/disco/seed0", "disco", 0)
    with pytest.raises(FcitError, match="no runs of disco_lad"):
        paired.compared(tmp_path, "disco", "disco_lad")


def test_the_share_of_the_distance_to_the_best_reference(
    build: Build, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import paired

    lasts = {"disco_lda": 65.0, "disco": 60.0, "individual": 70.0, "joint": 68.0}
    for method, last in lasts.items():
        build(f"task-hom/{method}/seed0", method, 0, last=last)
        build(f"task-het/{method}/seed0", method, 0, last=last if "disco" in method else 59.0)
    build("task-hom/disco_lda/seed1", "disco_lda", 1, last=99.0)  # no other method has this seed
    names = ["individual", "joint"]
    assert paired.gap_rows(tmp_path, "disco_lda", "disco", names) == [
        "| task-het (1) | 65.00 | 60.00 | 59.00 | 59.00 | -1.00 | none to close |",
        "| task-hom (1) | 65.00 | 60.00 | 70.00 | 68.00 | +10.00 | 50 % |",
        "",
        "task-hom, seed1: not finished",
    ]
    with pytest.raises(FcitError, match="no runs of multitask"):
        paired.gap_rows(tmp_path, "disco_lda", "disco", ["multitask"])
