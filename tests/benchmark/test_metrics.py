"""Metrics of a small matrix, worked out by hand."""

from __future__ import annotations

import pytest

from fcit.benchmark import metrics

MATRIX = [
    [80.0, None, None],
    [60.0, 50.0, None],
    [70.0, 20.0, 90.0],
]
NAMES = ["a", "b", "c"]


def test_last_is_the_mean_of_the_final_row():
    assert metrics.last(MATRIX) == 60.0


def test_avg_is_the_mean_of_the_rows_means():
    assert metrics.avg(MATRIX) == pytest.approx((80 + 55 + 60) / 3)


def test_forgetting_is_best_minus_last_of_datasets_that_a_later_stage_followed():
    assert metrics.forgetting(MATRIX, NAMES) == {"a": 10.0, "b": 30.0}
    assert metrics.forgetting([[10.0], [30.0]], ["a"]) == {"a": 0.0}  # it got better: nothing lost


def test_just_learned_is_the_first_accuracy():
    rows = [[10.0, None, None], [20.0, 30.0, None]]
    assert metrics.just_learned(rows, NAMES) == {"a": 10.0, "b": 30.0}


def test_backward_transfer_counts_only_datasets_that_stages_followed():
    assert metrics.backward_transfer(MATRIX) == pytest.approx((-10 - 30) / 2)
    assert metrics.backward_transfer([[10.0], [30.0]]) == 20.0
    assert metrics.backward_transfer([[10.0, 20.0]]) == 0.0


def test_unfinished_run_has_metrics_of_what_it_has_seen():
    rows = MATRIX[:2]
    assert metrics.last(rows) == 55.0
    assert metrics.avg(rows) == pytest.approx(67.5)
    assert metrics.forgetting(rows, NAMES) == {"a": 20.0}


def test_one_row_has_last_equal_to_avg():
    assert metrics.last([[40.0, 60.0]]) == metrics.avg([[40.0, 60.0]]) == 50.0


@pytest.mark.parametrize("matrix", [[], [[None, None]], [[1.0], [1.0, 2.0]]])
def test_matrix_without_values_is_our_own_mistake(matrix):
    with pytest.raises(ValueError, match="matrix"):
        metrics.last(matrix)
    with pytest.raises(ValueError, match="matrix"):
        metrics.avg(matrix)


def test_forgetting_wants_a_name_a_column():
    with pytest.raises(ValueError, match="3 columns for 2 datasets"):
        metrics.forgetting(MATRIX, ["a", "b"])
