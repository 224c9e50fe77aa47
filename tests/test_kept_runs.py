"""The runs kept in benchmarks/results are whole, are the sweep's, and make the documents' tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import mean, stdev

import pytest

from fcit.report import run_data
from fcit.report.groups import group_runs
from fcit.report.result_tables import paper_tables, setting_table
from fcit.report.run_data import read_runs
from fcit.report.significance import significance
from fcit.report.tables import to_markdown
from fcit.runs import sweep
from fcit.types import FcitError

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks" / "results" / "comparison"


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """Several tests compare the same runs, which do not change meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_data, "read_run", cache(run_data.read_run))
        yield


@pytest.mark.parametrize("name", ["comparison", "bytes", "tuning", "ablations", "small"])
def test_all_kept_runs_are_finished_runs_of_their_sweep(name: str) -> None:
    """Reading them compares digests, log, matrix and plan with each other and with the recipes."""
    runs = sweep.read(ROOT / "recipes" / "mini" / f"{name}.toml", KEPT.parent / name)
    finished = {status.run.folder for status in sweep.survey(runs) if status.finished}
    kept = {file.parent for file in (KEPT.parent / name).glob("*/*/*/config.toml")}
    assert kept and kept == finished


def test_the_page_of_bytes_has_its_means() -> None:
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    for folder in (KEPT, KEPT.parent / "bytes"):
        for method in ("disco", "disco_lda"):
            runs = read_runs([folder / "task-hom" / method])
            assert len(runs) == 3
            values = [[run.last or 0.0 for run in runs], [run.avg or 0.0 for run in runs]]
            shown = " | ".join(f"{mean(part):.2f} ± {stdev(part):.2f}" for part in values)
            down = runs[0].rounds[0].bytes_down[0] / 1000
            assert f" | {down:.1f} | {shown} |" in page


def test_the_page_of_the_mini_suite_has_the_runs_of_size_small() -> None:
    last = {run.method: f"{run.last:.2f}" for run in read_runs([KEPT.parent / "small"])}
    page = (ROOT / "docs" / "mini.md").read_text("utf-8")
    words = ("finetune", "finetune"), ("disco", "DISCO"), ("individual", "individual")
    shown = [
        f"{last.pop(method)} ({name})" for method, name in (*words, ("multitask", "multitask"))
    ]
    shown.append(f"zero-shot {last.pop('zeroshot')}.")
    assert not last
    assert not [figure for figure in shown if figure not in " ".join(page.split())]
    groups = group_runs(read_runs([KEPT]))
    tests = {group.slug: found for group in groups if (found := significance(group))}
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    rows = [
        line
        for line in to_markdown(paper_tables(groups, tests)).splitlines()
        if line.startswith("| ")
    ]
    assert len(rows) > 2
    assert not [row for row in rows if row not in page], "docs/results.md has other figures"


def test_results_has_where_the_gap_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gap

    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert "\n".join(gap.table(KEPT, "disco_lda")) in page
    with pytest.raises(FcitError, match="no run on Flickr30K"):
        gap.table(KEPT, "disco_lda", ["Flickr30K"])
    with pytest.raises(FcitError, match="no run of discolda"):
        gap.table(KEPT, "discolda")


def test_results_has_what_is_forgotten_in_task_hom() -> None:
    (group,) = group_runs(read_runs([KEPT / "task-hom"]))
    lines = to_markdown([setting_table(group)]).splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    chosen = ("Method", "Learned", "Forgetting", "Routing", "Ahead", "Transfer", "General")
    head = [cell.strip() for cell in rows[0]]
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    for row in rows:
        shown = [row[head.index(name)].strip() for name in chosen]
        if set(shown[1:]) != {"–"}:
            assert f"| {' | '.join(shown)} |" in page


def test_results_has_the_tables_of_the_ablations() -> None:
    runs = [run for run in read_runs([KEPT.parent / "ablations"]) if not run.unfinished]
    assert len(runs) == 15
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    for run in runs:
        assert f"| {run.last:.2f} | {run.avg:.2f} |" in page.replace("*", ""), run.path
    (concat,) = (run for run in runs if run.setting_of("method", "gate") == "concat")
    assert f"| {concat.last:.2f} | {concat.avg:.2f} | 44.48 | 36.75 | – |" in page
    assert not concat.routing, "all its subspaces gave 1 to every question"


def test_the_readme_has_their_means_and_deviations() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for method in ("disco", "disco_lda", "finetune", "joint", "individual", "multitask"):
        cells = []
        for setting in ("task-hom", "task-het", "cap-hom", "cap-het"):
            runs = read_runs([KEPT / setting / method])
            assert len(runs) == 3
            values = [[run.last or 0.0 for run in runs], [run.avg or 0.0 for run in runs]]
            shown = [f"{mean(part):.1f} ± {stdev(part):.1f}" for part in values]
            cells.append(", ".join(shown[: 1 if runs[0].reference else 2]))
        assert f" | {' | '.join(cells)} |" in readme, method


def test_the_page_of_disco_lda_has_its_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import paired

    page = (ROOT / "docs" / "methods" / "disco_lda.md").read_text("utf-8")
    rows = paired.compared(KEPT, "disco_lda", "disco")
    rows += paired.gap_rows(KEPT, "disco_lda", "disco", ["individual", "joint"])
    assert len(rows) == 8
    assert not [row for row in rows if row not in page], "docs/methods/disco_lda.md has others"


def test_the_table_of_the_real_base_has_the_kept_runs_differences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import paired

    rows = paired.compared(KEPT.parent / "real", "disco_lda", "disco")
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert len(rows) == 2
    assert not [row for row in rows if row not in page]


def test_the_table_of_tuning_has_what_the_kept_runs_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import tuned

    folder = KEPT.parent / "tuning"
    runs = sweep.read(tuned.PLAN, folder)
    rows = tuned.summary(tuned.read(runs), Counter(run.method for run in runs))[2:]
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert rows
    assert not [row for row in rows if row not in page], "docs/results.md has other choices"
