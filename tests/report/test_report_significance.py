"""The paired bootstrap says what can be worked out by hand, and compares only what was asked alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from math import comb
from pathlib import Path

import numpy as np
import pytest

from fcit.files import read_json, write_json, write_lines
from fcit.report.groups import Group, group_runs
from fcit.report.page import write
from fcit.report.run_data import read_runs
from fcit.report.significance import (
    RESAMPLES,
    _units,
    bootstrap,
    significance,
    significance_table,
    t_interval,
)
from fcit.seeds import numpy_stream

Build = Callable[..., Path]


def streamed(
    parts: Sequence[Sequence[np.ndarray]],
) -> list[list[tuple[np.ndarray, np.random.Generator]]]:
    return [
        [(unit, numpy_stream(0, "test", at, seed)) for seed, unit in enumerate(units)]
        for at, units in enumerate(parts)
    ]


def figures(*parts: Sequence[float]) -> tuple[float, float, float, float]:
    units = [[np.array(part, dtype=float)] for part in parts]
    return bootstrap(streamed(units))


def group(*runs: Path) -> Group:
    (found,) = group_runs(read_runs(runs))
    return found


def answer(folder: Path, dataset: str, scores: Sequence[float]) -> None:
    """Give a run's answers to a dataset after the final stage these scores."""
    file = folder / "predictions" / "3" / f"{dataset}.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    write_lines(file, [row | {"score": x} for row, x in zip(rows, scores, strict=True)])


def test_p_and_interval_are_those_worked_out_by_hand() -> None:
    difference, low, high, p = figures([100.0] * 3 + [-100.0])
    # a resample of four is at or below 0 with at most two of the 100s, each drawn with 3/4
    below = sum(comb(4, k) * 0.75**k * 0.25 ** (4 - k) for k in range(3))
    assert difference == 50.0
    assert p == pytest.approx(2 * below, abs=0.02)
    assert (low, high) == (-50.0, 100.0)


def test_the_interval_of_many_samples_is_the_normal_one() -> None:
    scores = np.tile([100.0, 0.0, 0.0, -100.0, 100.0], 200)
    difference, low, high, _ = figures(scores)
    error = scores.std() / len(scores) ** 0.5
    assert difference == pytest.approx(20.0)
    assert (low, high) == pytest.approx((20 - 1.96 * error, 20 + 1.96 * error), abs=0.3)


def test_drawing_counts_and_drawing_samples_agree() -> None:
    few = np.repeat([0.0, 60.0, -30.0], 40)
    many = few + np.linspace(0.0, 1e-6, len(few))  # all distinct: drawn one by one
    assert figures(few)[1:] == pytest.approx(figures(many)[1:], abs=0.6)


def test_equal_answers_cannot_be_told_apart() -> None:
    assert figures([0.0] * 10, [0.0] * 5) == (0.0, 0.0, 0.0, 1.0)


def test_a_difference_on_every_sample_is_as_sure_as_can_be() -> None:
    assert figures([100.0] * 8) == (100.0, 100.0, 100.0, pytest.approx(2 / (RESAMPLES + 1)))


def test_datasets_weigh_the_same_whatever_their_size() -> None:
    assert figures([100.0] * 30, [0.0])[0] == 50.0


def test_the_best_learner_and_finetune_are_compared_with_all(build: Build) -> None:
    runs = [
        build("d", "disco", last=60.0),
        build("f", "finetune", last=40.0),
        build("e", "ewc", last=50.0),
        build("m", "multitask", last=90.0),
    ]
    tests = significance(group(*runs))
    assert tests and tests.best == "disco"
    assert [(one.label, one.other) for one in tests.against_best] == [
        ("finetune", "disco"),
        ("ewc", "disco"),
    ]
    assert [(one.label, one.other) for one in tests.against_finetune] == [("ewc", "finetune")]
    (worse, _) = tests.against_best  # disco has 4 of 6 right everywhere, finetune 1 of 6
    assert worse.difference == pytest.approx(-50.0) and worse.below
    assert worse.over_questions and worse.over_questions[1] < 0 and worse.p and worse.p < 0.05
    assert tests.level == frozenset()
    (same,) = tests.against_finetune
    assert (same.difference, same.p) == (0.0, 1.0)


def test_what_answers_as_the_best_does_is_marked(build: Build) -> None:
    runs = [build("e", "ewc", last=60.0), build("f", "finetune", last=59.0)]
    found = group(*runs)
    tests = significance(found)
    assert tests and tests.level == {"finetune"}
    (line,) = significance_table(found, tests).lines
    assert [cell.text for cell in line.cells] == [
        "ewc",
        "+0.00",
        "+0.00 to +0.00",
        "1.0000",
        "–",
        "0",
    ]
    assert [cell.mark for cell in line.cells] == [False, False, False, False, True, False]


def test_the_interval_over_seeds_is_students() -> None:
    assert t_interval([4.0]) is None
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5))
    many = [float(at % 2) for at in range(12)]  # 11 degrees of freedom: 2.2010 in Student's table
    half = 2.2010 * np.std(many, ddof=1) / 12**0.5
    assert t_interval(many) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-4)


def test_seeds_that_disagree_are_not_called_significant(build: Build) -> None:
    """Sure over questions, as all answers differ; over seeds, one difference is 30 and the other 2."""
    both = (("disco", (60.0, 60.0)), ("finetune", (30.0, 58.0)))
    runs = [build(f"{m}{s}", m, s, last=x[s]) for m, x in both for s in (0, 1)]
    for name in ("ImageNet-R", "ArxivQA", "IconQA"):
        for folder, score in zip(runs, (100.0, 100.0, 0.0, 0.0), strict=True):
            answer(folder, name, [score] * 6)
    found = group(*runs)
    tests = significance(found)
    assert tests
    (one,) = tests.against_best
    half = 12.7062 * 14
    assert one.p and one.p < 0.05 and one.over_seeds == pytest.approx((-16 - half, -16 + half))
    assert not one.below and tests.level == {"finetune"}
    (line,) = significance_table(found, tests).lines
    assert line.cells[4].text == "-193.89 to +161.89" and line.cells[4].mark


def test_only_common_seeds_are_compared(build: Build) -> None:
    runs = [build(f"d{seed}", "disco", seed, last=60.0) for seed in (0, 1)]
    runs += [build(f"f{seed}", "finetune", seed, last=40.0) for seed in (1, 2)]
    tests = significance(group(*runs))
    assert tests and [one.seeds for one in tests.against_best] == [(1,)]
    apart = [runs[0], runs[3]]
    tests = significance(group(*apart))
    assert tests and tests.against_best == ()


def test_seeds_with_one_test_set_are_averaged_before_resampling(build: Build) -> None:
    """Two seeds that fail on opposite halves: as samples they vary, as questions they do not."""
    both = (("ewc", 100.0), ("finetune", 50.0))
    runs = [build(f"{m}{s}", m, s, last=x) for m, x in both for s in (0, 1)]
    for name in ("ImageNet-R", "ArxivQA", "IconQA"):
        for folder, scores in zip(
            runs,
            ([100.0] * 6, [100.0] * 6, [0, 0, 0, 100, 100, 100], [100, 100, 100, 0, 0, 0]),
            strict=True,
        ):
            answer(folder, name, scores)
    tests = significance(group(*runs))
    assert tests
    (one,) = tests.against_best
    assert one.over_questions == pytest.approx((-50.0, -50.0))
    assert one.difference == pytest.approx(-50.0)


def test_questions_that_some_seeds_share_stay_together() -> None:
    apart = [((b"a", b"b"), np.array([10.0, 0.0])), ((b"c", b"d"), np.array([4.0, 2.0]))]
    assert [unit.tolist() for unit in _units(apart)] == [[10, 0], [4, 2]]
    (unit,) = _units([apart[0], ((b"b", b"c"), apart[1][1])])
    assert unit.tolist() == [7.5, 3.0, 1.5]
    assert unit.mean() == 4  # of the seeds' means 5 and 3


def test_the_interval_is_wider_where_seeds_share_questions() -> None:
    """Two seeds with the same differences on nine of ten questions know little more than one."""
    differences = np.random.default_rng(0).choice([-100.0, 0.0, 100.0], 110)
    rows = [
        (tuple(b"%d" % n for n in range(first, first + 100)), differences[first : first + 100])
        for first in (0, 10)
    ]

    def width(units: list[np.ndarray]) -> float:
        streams = [(unit, numpy_stream(0, "test", at)) for at, unit in enumerate(units)]
        _, low, high, _ = bootstrap([streams])
        return high - low

    apart = width([unit for _, unit in rows])
    assert 1.25 * apart < width(_units(rows)) < 1.5 * apart  # the square root of two, nearly


def test_other_questions_are_not_compared(build: Build) -> None:
    runs = [build("d", "disco"), build("f", "finetune")]
    file = runs[1] / "predictions" / "3" / "IconQA.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    write_lines(file, rows[:-1])
    tests = significance(group(*runs))
    assert tests and tests.against_best == ()


def test_copies_without_answers_are_compared_over_seeds(build: Build) -> None:
    both = (("disco", (60.0, 62.0, 61.0)), ("finetune", (30.0, 31.0, 32.0)))
    runs = [build(f"{m}{s}", m, s, last=x[s]) for m, x in both for s in range(3)]
    for folder in runs[3:]:
        shutil.rmtree(folder / "predictions")
    found = group(*runs)
    tests = significance(found)
    assert tests
    (one,) = tests.against_best
    assert (one.over_questions, one.p) == (None, None)
    assert one.over_seeds == pytest.approx(t_interval([-30.0, -31.0, -29.0]))
    assert one.below and not tests.level
    table = significance_table(found, tests)
    assert [cell.text for cell in table.lines[0].cells[2:4]] == ["–", "–"]
    assert not any("bootstrap" in note for note in table.notes)
    assert any("answers are missing" in note for note in table.notes)
    tests = significance(group(runs[0], runs[3]))
    assert tests and tests.against_best == (), "one seed without answers decides nothing"


def test_one_missing_file_of_answers_counts_as_none(build: Build) -> None:
    runs = [build(f"{m}{s}", m, s, last=60.0 + s) for m in ("disco", "finetune") for s in (0, 1)]
    (runs[0] / "predictions" / "3" / "IconQA.jsonl").unlink()
    tests = significance(group(*runs))
    assert tests
    (one,) = tests.against_best
    assert one.p is None and one.over_seeds == (0.0, 0.0) and not one.below


def test_equal_differences_of_two_seeds_decide_nothing_alone(build: Build) -> None:
    runs = [build(f"d{s}", "disco", s, last=60.0) for s in (0, 1)]
    runs += [build(f"f{s}", "finetune", s, last=59.5) for s in (0, 1)]
    for folder in runs:
        shutil.rmtree(folder / "predictions")
    tests = significance(group(*runs))
    assert tests and [one.over_seeds for one in tests.against_best] == [(-0.5, -0.5)]
    assert tests.level == {"finetune"}


def test_copies_that_were_asked_other_questions_are_not_compared(build: Build) -> None:
    runs = [build(f"{m}{s}", m, s) for m in ("disco", "finetune") for s in (0, 1)]
    for folder in runs:
        shutil.rmtree(folder / "predictions")
    config = runs[3] / "config.toml"
    text = config.read_text("utf-8")
    assert "[evaluation]" in text
    config.write_text(text.replace("[evaluation]", "[evaluation]\nlimit = 7"), "utf-8")
    tests = significance(group(*runs))
    assert tests and tests.against_best == ()


def test_a_score_that_is_no_mean_of_samples_is_named(build: Build) -> None:
    runs = [build("d", "disco"), build("f", "finetune")]
    for folder in runs:
        scores = [100.0, 0.0] * 3
        for name in ("ImageNet-R", "ArxivQA", "IconQA"):
            answer(folder, name, scores)
        matrix = read_json(folder / "matrix.json")
        matrix["matrix"][-1] = [50.0, 50.0, 31.0]
        write_json(folder / "matrix.json", matrix)
    found = group(*runs)
    tests = significance(found)
    assert tests and tests.corpus_scored == ("IconQA",)
    assert significance_table(found, tests).notes[-1].startswith("IconQA: ")


def test_one_method_alone_is_compared_with_nothing(build: Build) -> None:
    assert significance(group(build("d", "disco"), build("z", "zeroshot"))) is None


@pytest.mark.usefixtures("undrawn")
def test_methods_that_share_no_questions_make_a_report_without_comparisons(
    build: Build, tmp_path: Path
) -> None:
    runs = [build("d", "disco", 0), build("f", "finetune", 1)]
    page = write(runs, tmp_path / "out").read_text("utf-8")
    assert "Significance</h3>" not in page
    assert (tmp_path / "out" / "significance.csv").read_text("utf-8") == ""
