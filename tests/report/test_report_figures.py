"""Figures show the runs' numbers, with labels and units."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fcit.files import write_text
from fcit.methods import find
from fcit.report import charts, heatmaps, style
from fcit.report.groups import group_runs
from fcit.report.run_data import read_run, read_runs
from fcit.types import FcitError

Build = Callable[..., Path]


def texts(figure: Figure) -> set[str]:
    from matplotlib.text import Text

    return {part.get_text() for part in figure.findobj(Text)} - {""}


def test_mean_heat_map_is_the_mean_of_the_cells(build: Build) -> None:
    parts = [[[40.0, None], [20.0, 60.0]], [[60.0, None], [30.0, 70.0]]]
    runs = [build(f"d{at}", "disco", at, ["a", "b"], matrix=m) for at, m in enumerate(parts)]
    (group,) = group_runs(read_runs(runs))
    assert group.entries[0].matrix == [[50.0, None], [25.0, 65.0]]
    shown = texts(heatmaps.accuracy_by_stage(group.entries[0]))
    assert {"50.0", "25.0", "65.0", "a", "b", "1 a", "accuracy, %"} <= shown


def test_curves_follow_the_mean_over_seen_datasets(build: Build) -> None:
    matrix = [[80.0, None], [50.0, 70.0]]
    runs = [
        build("d", "disco", datasets=["a", "b"], matrix=matrix),
        build("m", "multitask", datasets=["a", "b"], matrix=[[90.0, 60.0]]),
    ]
    (group,) = group_runs(read_runs(runs))
    axes = charts.curves(group).axes[0]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["disco"] == [80.0, 60.0] and lines["multitask"] == [90.0, 75.0]
    assert lines["chance"] == [5.0, 5.5] and lines["base model, untrained"] == [12.0, 13.5]
    assert "%" in axes.get_ylabel() and axes.get_xlabel() == "after stage"


def test_forgetting_bars_are_as_high_as_the_numbers(build: Build) -> None:
    matrix = [[80.0, None, None], [70.0, 60.0, None], [50.0, 65.0, 90.0]]
    runs = [build("d", "disco", datasets=["a", "b", "c"], matrix=matrix)]
    axes = charts.forgetting(group_runs(read_runs(runs))[0]).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [30.0, 0.0]
    assert "points" in axes.get_ylabel() and {"a", "b"} <= texts(axes.figure)


def test_forgetting_says_who_is_unfinished(build: Build) -> None:
    (group,) = group_runs(read_runs([build("d", "disco", done=2), build("f", "finetune")]))
    said = texts(charts.forgetting(group))
    assert "finetune" in said and "disco (unfinished: 2 of 3 stages)" in said


def test_final_accuracy_marks_every_method_and_chance(build: Build) -> None:
    runs = [build("d", "disco"), build("z", "zeroshot")]
    axes = charts.final_accuracy(group_runs(read_runs(runs))[0]).axes[0]
    labels = {part.get_label(): part for part in axes.collections}
    assert [x for x, _ in labels["zeroshot"].get_offsets()] == [12.0, 15.0, 18.0]
    assert [x for x, _ in labels["chance"].get_offsets()] == [5.0, 6.0, 7.0]
    assert len(labels["disco"].get_offsets()) == 3


def test_similarity_is_of_cosines_labelled_with_what_trained_them(build: Build) -> None:
    run = read_run(build("d", "disco"))
    shown = texts(heatmaps.token_similarity(run))
    assert {"1.00", "0 ImageNet-R", "2 IconQA", "cosine"} <= shown
    assert len(run.tokens) == 3


def test_tokens_of_both_kinds_average_their_two_cosines(build: Build) -> None:
    from dataclasses import replace

    run = read_run(build("d", "disco"))
    tokens = ((1.0, 0.0, 9.0, 0.0), (0.0, 1.0, 3.0, 0.0))
    both = replace(run, tokens=tokens, method_used=find("disco")(token="both"))
    assert "0.50" in texts(heatmaps.token_similarity(both))
    assert "0.50" not in texts(heatmaps.token_similarity(replace(both, method_used=None)))


def test_activation_is_the_final_stages_mean(build: Build) -> None:
    folder = build("d", "disco")
    file = folder / "predictions/3/ArxivQA.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for at, row in enumerate(rows):
        row["activation"] = {"0": 0.2, "1": 0.8} if at % 2 else {"0": 0.4, "1": 0.6}
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(folder)
    means = heatmaps.activation_means(run)
    assert means["ArxivQA"] == pytest.approx({"0": 0.3, "1": 0.7})
    shown = texts(heatmaps.activation(run, means))
    assert {"0.30", "0.70", "0.90", "ArxivQA", "1 ArxivQA"} <= shown


def test_partition_shows_every_count_of_few_clients_and_labels_many() -> None:
    few = heatmaps.partition({"A": [1, 20, 300], "B": [4, 5]})
    assert {"300", "20", "5", "A", "B", "client"} <= texts(few)
    many = heatmaps.partition({"A": list(range(50))})
    assert {"0", "45", "training samples"} <= texts(many)
    assert heatmaps.partition({}).axes


def test_traffic_shows_a_clients_share_in_megabytes(build: Build) -> None:
    runs = [build("d", "disco"), build("f", "finetune")]
    figure = charts.traffic(group_runs(read_runs(runs))[0])
    down, up, time = figure.axes[:3]
    lines = {line.get_label(): list(line.get_ydata()) for line in up.get_lines()}
    assert lines["disco"] == [0.3] * 6 and lines["finetune"] == [0.9] * 6
    assert list(time.get_lines()[0].get_ydata()) == [4.0, 5.0] * 3
    assert down.get_ylabel() == "MB" and time.get_ylabel() == "seconds per round"


def test_figures_leave_global_state_alone(build: Build) -> None:
    import matplotlib
    from matplotlib import _pylab_helpers

    before = dict(matplotlib.rcParams)
    charts.curves(group_runs(read_runs([build("d", "disco")]))[0])
    assert dict(matplotlib.rcParams) == before
    assert not _pylab_helpers.Gcf.get_all_fig_managers()


def test_dark_svg_changes_ink_and_paper_but_no_data() -> None:
    svg = style.to_svg(heatmaps.partition({"A": [1, 2]}))
    dark = style.to_dark(svg)
    assert style.PAPER in svg and style.PAPER not in dark and style.DARK[style.PAPER] in dark
    assert svg.count(heatmaps.BROWNS[-1]) == dark.count(heatmaps.BROWNS[-1]) > 0


def test_a_partition_is_saved_as_its_name_says(tmp_path: Path) -> None:
    heatmaps.save_partition({"A": [1, 2]}, tmp_path / "p.png")
    heatmaps.save_partition({"A": [1, 2]}, tmp_path / "p.svg")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "p.svg").read_text(encoding="utf-8")
    with pytest.raises(FcitError, match=r"p\.pdf: a picture ends with"):
        heatmaps.save_partition({"A": [1, 2]}, tmp_path / "p.pdf")
