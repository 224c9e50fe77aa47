"""One table over settings: who is best where, what stands apart, and its forms."""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from fcit.files import write_text
from fcit.report.groups import group_runs
from fcit.report.page import write
from fcit.report.result_tables import paper_tables
from fcit.report.results import run_results
from fcit.report.run_data import RunData, by_data, read_run, read_runs
from fcit.report.significance import significance
from fcit.report.tables import Table, to_csv, to_latex, to_markdown
from fcit.types import FcitError

Build = Callable[..., Path]


def sheets(*runs: Path) -> list[Table]:
    groups = group_runs(read_runs(runs))
    tests = {group.slug: found for group in groups if (found := significance(group))}
    return paper_tables(groups, tests)


def variant(folder: Path, **fields: object) -> Path:
    """The run with these hyper-parameters."""
    config = tomllib.loads((folder / "config.toml").read_text("utf-8"))
    config["method"] |= fields
    write_text(folder / "config.toml", tomli_w.dumps(config))
    return folder


@pytest.fixture
def runs(build: Build) -> list[Path]:
    """Three methods in two settings, and a point of reference in one."""
    return [
        build("hd", "disco", last=60.0, avg=70.0, setting="task-het"),
        build("hf", "finetune", last=65.0, avg=55.0, setting="task-het"),
        *(build(f"d{s}", "disco", s, last=x, avg=50.0) for s, x in ((0, 60.0), (1, 64.0))),
        *(build(f"f{s}", "finetune", s, last=40.0, avg=70.0) for s in (0, 1)),
        *(build(f"e{s}", "ewc", s, last=50.0, avg=60.0) for s in (0, 1)),
        build("m", "multitask", last=99.0, avg=99.0),
    ]


def test_settings_over_the_same_datasets_share_a_table(runs: list[Path]) -> None:
    (one,) = sheets(*runs)
    assert one.spans == (("task-hom, β 1.0", 2), ("task-het, β 1.0", 2))
    lines = {line.label: [cell.text for cell in line.cells] for line in one.lines}
    assert list(lines) == ["disco", "finetune", "ewc", "multitask"]
    assert lines["disco"] == ["62.00 ± 2.83", "50.00 ± 0.00", "60.00", "70.00"]
    assert lines["ewc"][2:] == lines["multitask"][2:] == ["–", "–"]


def test_other_datasets_or_scoring_make_other_tables(build: Build) -> None:
    found = sheets(
        build("a"),
        build("b", datasets=["x", "y"]),
        build("c", scoring="reference"),
        build("d", beta=0.5),
    )
    assert [one.spans for one in found] == [
        (("task-hom, β 0.5", 2), ("task-hom, β 1.0", 2)),
        (("task-hom, β 1.0", 2),),
        (("task-hom, β 1.0", 2),),
    ]


def test_best_is_bold_and_second_of_three_underlined(runs: list[Path]) -> None:
    text = to_markdown(sheets(*runs))
    assert "| disco | **62.00 ± 2.83** | 50.00 ± 0.00 | 60.00† | **70.00** |" in text
    assert "| finetune | 40.00 ± 0.00† | **70.00 ± 0.00** | **65.00** | 55.00 |" in text
    assert "| ewc | <u>50.00 ± 0.00</u>† | <u>60.00 ± 0.00</u> | – | – |" in text
    assert "| multitask | 99.00 | 99.00 | – | – |" in text


def test_fewer_seeds_do_not_compete(build: Build, tmp_path: Path) -> None:
    many = [build(f"{m}{s}", m, s, last=40.0) for m in ("ewc", "finetune") for s in (0, 1)]
    (one,) = sheets(*many, build("lucky", "disco", last=90.0))
    assert [line.cells[0].best for line in one.lines] == [False, True, True]
    third = build("ewc2", "ewc", 2, last=40.0)  # as of a sweep that is half done: 3, 2 and 1 seeds
    (half,) = sheets(*many, third, tmp_path / "lucky")
    assert [line.cells[0].best for line in half.lines] == [False, True, True]
    (alone,) = sheets(*many[:2], tmp_path / "lucky")
    assert [line.cells[0].best for line in alone.lines] == [True, False]


def test_an_unfinished_setting_is_named(build: Build) -> None:
    runs = [build("a", "disco"), build("b", "disco", done=1, setting="task-het"), build("c", "ewc")]
    (one,) = sheets(*runs)
    labels = [line.label for line in one.lines]
    assert labels == ["disco (task-het unfinished: 1 of 3 stages)", "ewc"]


def test_runs_on_other_data_are_not_compared(build: Build) -> None:
    runs = [build(f"d{seed}", "disco", seed) for seed in (0, 1)]
    (moved,) = group_runs(read_runs(runs))
    assert [entry.seeds for entry in moved.entries] == ["0, 1"]
    config = tomllib.loads((runs[1] / "config.toml").read_text("utf-8"))
    config["data"]["root"] = str(runs[1])
    write_text(runs[1] / "config.toml", tomli_w.dumps(config))
    groups = group_runs(read_runs(runs))  # their training samples differ in number, too
    assert [[entry.seeds for entry in group.entries] for group in groups] == [["0"], ["1"]]
    assert groups[1].title.endswith(f"(data.root = {runs[1]})")
    assert groups[0].slug != groups[1].slug and groups[0].heading != groups[1].heading
    (paper,) = paper_tables(groups, {})
    assert len({title for title, _ in paper.spans}) == 2


def test_runs_without_a_partition_stand_with_those_of_their_folder(build: Build) -> None:
    def at(root: str, method: str, **partition: list[int]) -> RunData:
        run = read_run(build(f"{root}-{method}-{len(partition)}", method))
        config = {**run.config, "data": {**run.config["data"], "root": root}}
        return replace(run, config=config, partition=partition)

    a, b = at("a", "finetune", x=[4]), at("b", "finetune", x=[5])
    zero_a, zero_b, away = at("a", "zeroshot"), at("b", "zeroshot"), at("d", "disco")
    for runs in ([a, zero_a, b, zero_b], [zero_a, a, b, zero_b], [zero_b, zero_a, b, a]):
        parts = {frozenset(map(id, part)) for part in by_data(runs)}
        assert parts == {frozenset({id(a), id(zero_a)}), frozenset({id(b), id(zero_b)})}
    far = at("e", "disco")
    assert by_data([away, a, b, far]) == [[a], [b], [away, far]]
    assert by_data([away, a]) == [[a, away]]  # nothing says that its data are others


def test_reference_points_stand_below_a_rule(runs: list[Path]) -> None:
    text = to_latex(sheets(*runs))
    assert text.count("\\midrule") == 2
    assert "-- & -- \\\\\n\\midrule\nmultitask & 99.00" in text
    assert "disco & \\textbf{62.00 $\\pm$ 2.83} & 50.00 $\\pm$ 0.00 & 60.00$^\\dagger$ &" in text
    assert "\\underline{50.00 $\\pm$ 0.00}" in text
    assert "\\multicolumn{2}{c}{task-hom, $\\beta$ 1.0}" in text


def test_csv_holds_means_and_deviations_apart(runs: list[Path]) -> None:
    _, head, disco, *_ = csv.reader(io.StringIO(to_csv(sheets(*runs))))
    row = dict(zip(head, disco, strict=True))
    assert row["task-hom, β 1.0 Last"] == "62.0000" and row["task-hom, β 1.0 Last sd"] == "2.8284"
    assert (row["task-het, β 1.0 Last"], row["task-het, β 1.0 Last sd"]) == ("60.0000", "")


@pytest.mark.usefixtures("undrawn")
def test_a_folder_of_run_folders_stands_for_all_of_them(
    build: Build, tmp_path: Path, runs: list[Path]
) -> None:
    sweep = tmp_path / "sweep"
    for at, folder in enumerate(runs):
        (sweep / f"part{at}").mkdir(parents=True)
        folder.rename(sweep / f"part{at}" / folder.name)
    (sweep / "part0" / "report").mkdir()
    assert len(read_runs([sweep])) == len(runs)
    assert len(read_runs([sweep, sweep / "part0" / "hd"])) == len(runs)
    page = write([sweep], tmp_path / "out")
    text = page.read_text("utf-8")
    assert text.index('id="papers"') < text.index('id="s1"')
    assert text.count("Significance</h3>") == 2
    with pytest.raises(FcitError, match="report: holds no matrix.json"):
        read_runs([sweep / "part0" / "report"])


@pytest.mark.usefixtures("undrawn")
def test_many_variants_are_in_the_tables_and_not_in_the_figures(
    build: Build, tmp_path: Path
) -> None:
    some = [variant(build(f"t{at}"), tau=at / 20) for at in range(13)]
    text = write([build("f", "finetune"), *some], tmp_path / "out").read_text("utf-8")
    assert "leave out 12 variants" in text
    assert text.count('id="accuracy-') == 2
    assert (tmp_path / "out" / "paper.md").read_text("utf-8").count("| disco") == 13


def test_a_variant_is_named_by_what_sets_it_apart_from_the_usual_one(build: Build) -> None:
    hard = variant(build("a-hard"), gate="argmax", token="text")
    soft = [variant(build(f"s{s}", "disco", s), gate="softmax", token="text") for s in (0, 1)]
    seen = variant(build("image"), gate="softmax", token="image")
    (one,) = group_runs(read_runs([hard, *soft, seen]))
    assert [entry.label for entry in one.entries] == [
        "disco",
        "disco (gate=argmax)",
        "disco (token=image)",
    ]
    assert [entry.variant for entry in one.entries] == [False, True, True]


def test_new_figures_have_columns_and_may_be_absent(build: Build) -> None:
    new = {"ahead": {"ArxivQA": 20.0, "IconQA": 22.0}, "general": {"before": 50.0, "after": 47.5}}
    runs = [build("a", **new), build("b"), build("c", ahead={}, general={})]
    full, none, empty = (run_results(read_run(run)) for run in runs)
    fields = ("ahead", "transfer", "general")
    assert [full[field] for field in fields] == [21.0, 4.5, -2.5]
    assert [results[field] for results in (none, empty) for field in fields] == [None] * 6
