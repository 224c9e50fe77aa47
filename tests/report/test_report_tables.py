"""Tables hold the runs' numbers and put together only what may be compared."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from fcit.files import read_json, write_text
from fcit.methods import find, names
from fcit.report.groups import group_runs
from fcit.report.page import write
from fcit.report.result_tables import paper_tables, setting_table, settings_csv
from fcit.report.results import run_results
from fcit.report.run_data import read_run, read_runs
from fcit.report.style import LOOKS, SPARE_COLOURS
from fcit.report.tables import csv_text, to_markdown

Build = Callable[..., Path]


def rows_of(runs: list[Path]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(settings_csv(group_runs(read_runs(runs))))))


def markdown(runs: list[Path]) -> str:
    return to_markdown([setting_table(group) for group in group_runs(read_runs(runs))])


@pytest.mark.usefixtures("undrawn")
def test_tables_hold_the_runs_numbers(build: Build, tmp_path: Path) -> None:
    folder = build("d", "disco")
    other = build("f", "finetune")
    write([folder, other], tmp_path / "out")
    data = read_json(folder / "matrix.json")
    disco, finetune = rows_of([folder, other])
    written = (tmp_path / "out/table.csv").read_text(encoding="utf-8")
    assert written == settings_csv(group_runs(read_runs([folder, other])))
    assert (disco["method"], finetune["method"]) == ("disco", "finetune")
    assert float(disco["last"]) == pytest.approx(data["last"], abs=1e-4)
    assert float(disco["avg"]) == pytest.approx(data["avg"], abs=1e-4)
    first, second = (
        data["matrix"][0][0],
        data["matrix"][1][1],
    )  # the last stage's own dataset is left out
    lost = first - data["matrix"][-1][0], second - data["matrix"][-1][1]
    assert float(disco["forgetting"]) == pytest.approx(fmean(lost), abs=1e-4)
    learned = fmean((first, second, data["matrix"][-1][-1]))
    assert float(disco["learned"]) == pytest.approx(learned, abs=1e-4)
    assert float(disco["zero_shot"]) == pytest.approx(15.0) and disco["chance"] == "6.0000"
    assert disco["last_sd"] == "" and finetune["routing"] == ""
    last = f"{data['last']:.2f}"
    assert f"| disco | **{last}** |" in (tmp_path / "out/table.md").read_text(encoding="utf-8")
    assert f"disco & \\textbf{{{last}}} &" in (tmp_path / "out/table.tex").read_text("utf-8")
    assert f'<td class="best">{last}</td>' in (tmp_path / "out/index.html").read_text("utf-8")


def test_backward_transfer_leaves_the_last_stage_out(build: Build) -> None:
    matrix = [[80.0, None], [50.0, 70.0]]
    results = run_results(read_run(build("d", datasets=["a", "b"], matrix=matrix)))
    assert results["backward"] == pytest.approx(-30.0)


def test_best_is_bold_and_less_forgetting_is_better(build: Build) -> None:
    two = {"datasets": ["a", "b"]}
    runs = [
        build("d", "disco", last=60.0, avg=50.0, matrix=[[75.0, None], [70.0, 50.0]], **two),
        build("f", "finetune", last=40.0, avg=70.0, matrix=[[69.0, None], [60.0, 20.0]], **two),
        build("m", "multitask", last=99.0, avg=99.0, **two),
    ]
    text = markdown(runs)
    assert "| disco | **60.00** | 50.00 | **62.50** | **5.00** |" in text
    assert "| finetune | 40.00 | **70.00** | 44.50 | 9.00 |" in text
    assert "| multitask | 99.00 | 99.00 | – | – |" in text


@pytest.mark.parametrize(
    "change",
    [
        {"beta": 0.5},
        {"setting": "task-het"},
        {"scoring": "reference"},
        {"datasets": ["x", "y", "z"]},
        {"setting": "task.hom"},
        {"setting": "Task hom"},
    ],
)
def test_incomparable_runs_get_sections_of_their_own(
    build: Build, change: dict[str, object]
) -> None:
    names = change.get("datasets") or ["a", "b", "c"]
    rest = {key: value for key, value in change.items() if key != "datasets"}
    runs = [build("one", datasets=["a", "b", "c"]), build("two", seed=1, datasets=names, **rest)]
    groups = group_runs(read_runs(runs))
    assert len(groups) == 2 and groups[0].slug != groups[1].slug
    assert groups[0].title != groups[1].title
    assert markdown(runs).lower().count("## task") == len(rows_of(runs)) == 2


def test_every_method_has_a_colour_of_its_own_and_a_marker_among_its_likes() -> None:
    assert set(LOOKS) == set(names())
    colours = [*(colour for colour, _ in LOOKS.values()), *SPARE_COLOURS]
    assert len(set(colours)) == len(colours)
    likes = Counter((find(name).reference, marker) for name, (_, marker) in LOOKS.items())
    assert set(likes.values()) == {1}


def test_variants_of_a_method_are_told_apart(build: Build) -> None:
    runs = [build("soft", "disco"), build("hard", "disco", 1)]
    text = (runs[1] / "config.toml").read_text(encoding="utf-8")
    write_text(runs[1] / "config.toml", text.replace("rank = 8", 'rank = 8\ngate = "argmax"'))
    (group,) = group_runs(read_runs(runs))
    labels = [entry.label for entry in group.entries]
    assert len(labels) == 2 and "disco (gate=argmax)" in labels
    assert group.entries[0].colour == LOOKS["disco"][0] != group.entries[1].colour


def test_a_repeated_seed_is_never_averaged_and_one_folder_counts_once(build: Build) -> None:
    one, two = build("one", "disco"), build("two", "disco")
    (group,) = group_runs(read_runs([one, two, one]))
    assert [entry.label for entry in group.entries] == ["disco (one)", "disco (two)"]


def test_settings_that_differ_are_said(build: Build) -> None:
    runs = [build("d", "disco"), build("f", "finetune", federation={"rounds": 9})]
    (group,) = group_runs(read_runs(runs))
    assert group.differences == ("federation.rounds: disco 2, finetune 9",)
    said = "the runs also differ in federation.rounds: disco 2, finetune 9."
    assert f"task-hom, β 1.0: {said}" in markdown(runs)
    less = build("m", "multitask", evaluation={"scoring": "strict", "limit": 9})
    (group,) = group_runs(read_runs([runs[0], less]))
    assert group.differences == ("evaluation.limit: disco 0, multitask 9",)


def test_orders_of_the_same_datasets_are_told_apart(build: Build) -> None:
    runs = [build("a"), build("b", datasets=["IconQA", "ImageNet-R", "ArxivQA"])]
    orders = ["ImageNet-R, ArxivQA, IconQA", "IconQA, ImageNet-R, ArxivQA"]
    groups = group_runs(read_runs(runs))
    assert [group.data for group in groups] == [f"order {order}" for order in orders]
    assert all(order in group.heading for group, order in zip(groups, orders, strict=True))
    assert [row["data"] for row in rows_of(runs)] == [f"order {order}" for order in orders]


def test_an_unfinished_seed_is_not_averaged_with_finished_ones(build: Build) -> None:
    runs = [build("a", "disco", 0, done=2), build("b", "disco", 1), build("c", "disco", 2)]
    (group,) = group_runs(read_runs(runs))
    assert [(entry.label, len(entry.runs)) for entry in group.entries] == [
        ("disco", 2),
        ("disco (seed 0)", 1),
    ]


def test_a_runs_results_are_those_of_its_matrix(build: Build) -> None:
    disco = run_results(read_run(build("d", "disco", 4)))
    zero_shot = run_results(read_run(build("z", "zeroshot")))
    assert (disco["routing"], disco["chance"], disco["zero_shot"]) == (99.0, 6.0, 15.0)
    assert zero_shot["last"] == zero_shot["avg"] == 15.0
    assert zero_shot["routing"] is None


def test_a_table_says_which_methods_keep_old_data(build: Build) -> None:
    (group,) = group_runs(read_runs([build("a", "finetune"), build("b", "replay")]))
    (note,) = [note for note in setting_table(group).notes if "old data" in note]
    assert note.startswith("replay: clients keep old data")
    assert note in paper_tables([group], {})[0].notes


def test_a_spreadsheet_takes_nothing_for_a_formula_and_intervals_stay_numbers() -> None:
    cells = ["+0.52 to +3.10", "-3.10 to -0.52", "-1.5", "-2+3", "+1|cmd", "@x", "=1", "disco"]
    safe = ["+0.52 to +3.10", "-3.10 to -0.52", "-1.5", "'-2+3", "'+1|cmd", "'@x", "'=1", "disco"]
    assert csv_text([cells]) == ",".join(safe) + "\n"
