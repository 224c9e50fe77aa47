"""The gap to centralised training is taken apart into steps that say what they mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fcit.report import gallery, page
from fcit.report.gap import gap, rungs
from fcit.report.groups import Spread, group_runs
from fcit.report.run_data import read_runs

Build = Callable[..., Path]
LAST = {
    "zeroshot": 13.5, "finetune": 50.0, "ewc": 45.0, "disco": 72.0, "replay": 75.0, "joint": 71.0,
    "individual": 73.0, "individual_central": 78.0, "multitask": 79.5,
}  # fmt: skip
MEANINGS = {
    "base model": (13.5, None, ""),
    "finetune": (50.0, 36.5, "learned and kept by finetune"),
    "disco": (72.0, 22.0, "saved by disco"),
    "joint": (71.0, -1.0, "price of stages (forgetting)"),
    "individual": (73.0, 2.0, "price of one model for all datasets"),
    "individual_central": (78.0, 5.0, "price of federating"),
    "multitask": (79.5, 1.5, "what the datasets teach one another"),
}


def made(build: Build, names: list[str], seeds: int = 1, **changes: dict):
    runs = [
        build(f"{name}-{seed}", name, seed, ["a", "b"], last=LAST[name] + 2 * seed, **changes)
        for name in names
        for seed in range(seeds)
    ]
    (group,) = group_runs(read_runs(runs))
    return group


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_step_has_its_meaning_and_its_points(build: Build) -> None:
    found = rungs(made(build, list(LAST)))
    steps = {one.label: (one.last.mean, one.step and one.step.mean, one.meaning) for one in found}
    assert steps == MEANINGS  # in this order; ewc is not the best, and replay keeps old data


@pytest.mark.parametrize(
    ("names", "meanings"),
    [
        (["disco", "multitask"], ["learned and kept by disco",
         "price of stages (forgetting) + price of federating"]),
        (["finetune", "joint", "multitask"], ["learned and kept by finetune",
         "price of stages (forgetting)", "price of federating"]),
        (["joint", "individual_central"], ["learned and kept by joint",
         "price of one model for all datasets + price of federating"]),
    ],
)  # fmt: skip
def test_a_part_of_the_points_gives_the_steps_between_them(
    names: list[str], meanings: list[str], build: Build
) -> None:
    assert [one.meaning for one in rungs(made(build, names))] == ["", *meanings]


def test_there_is_no_picture_without_a_trained_reference_point(build: Build) -> None:
    assert not list(gallery.taken_apart(made(build, ["zeroshot", "finetune", "disco"])))


def test_steps_are_paired_by_seed_where_both_have_the_same(build: Build) -> None:
    base, one, two = rungs(made(build, ["finetune", "multitask"], seeds=2))
    assert base.last == Spread(13.5, 0.0)
    assert one.last.mean == 51.0 and one.last.deviation == pytest.approx(2**0.5)
    assert two.step == Spread(29.5, 0.0)
    more = build("joint-7", "joint", 7, ["a", "b"], last=60.0)
    folders = [
        more,
        *(more.parent / f"{name}-{seed}" for name in ("finetune", "multitask") for seed in (0, 1)),
    ]
    found = rungs(group_runs(read_runs(folders))[0])
    assert [one.step for one in found[2:]] == [Spread(9.0), Spread(20.5)]


def test_the_picture_shows_bars_values_and_steps_down_hatched(build: Build, tmp_path: Path) -> None:
    found = rungs(made(build, list(LAST), seeds=2))
    figure = gap(found)
    bars = [bar for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    ends = [bar.get_x() + bar.get_width() for bar in bars[1::2]]
    assert ends == pytest.approx([13.5, 51, 73, 73, 74, 79, 80.5])  # joint: from 73 down to 72
    assert [bool(bar.get_hatch()) for bar in bars[1::2]] == [one.label == "joint" for one in found]
    assert "−1.0 ± 0.0  price of stages (forgetting)" in words(figure)
    assert "72.0 ± 1.4" in words(figure)


def test_it_is_a_figure_of_the_report(build: Build, undrawn: None, tmp_path: Path) -> None:
    made(build, ["zeroshot", "finetune", "joint"])
    out = page.write([tmp_path], tmp_path / "report")
    assert "The gap to centralised training" in out.read_text(encoding="utf-8")
    assert (out.parent / "figures" / "gap.svg").is_file()
