"""Contenders in turns, and what their seconds say."""

from __future__ import annotations

import itertools

import pytest

from fcit_bench.timing import interleaved, ratio


def test_every_contender_warms_up_once_and_odd_rounds_go_backwards() -> None:
    called: list[str] = []
    ticks = itertools.count()
    done: list[int] = []
    calls = {name: lambda name=name: called.append(name) for name in "abc"}
    prepared: list[str] = []

    def prepare(name: str) -> None:
        next(ticks)  # what it takes is not counted
        prepared.append(name)

    found = interleaved(calls, 3, done.append, lambda: float(next(ticks)), prepare)
    assert "".join(called) == "abc" + "abc" + "cba" + "abc" == "".join(prepared)
    assert found == {name: [1.0] * 3 for name in "abc"}
    assert done == [1, 2, 3]


def test_a_ratio_is_taken_round_by_round() -> None:
    slow_round = 10.0  # both sides meet it, so it says nothing
    found = ratio([1, 2 * slow_round, 4], [2, 4 * slow_round, 4], "samples/s", (8, 8), 1.9)
    assert found.ratio == 2.0
    assert (found.low, found.high) == (1.5, 2.0)
    assert (found.ours, found.theirs) == (2.0, 2.0)
    assert found.met is True
    assert ratio([1], [0.5], "samples/s", (1, 1), 0.97).met is False
    assert ratio([1], [0.5], "samples/s", (1, 1)).met is None


def test_work_of_different_sizes_is_compared_by_throughput() -> None:
    found = ratio([2.0], [1.0], "answers/s", (16, 2))
    assert (found.ours, found.theirs, found.ratio) == (8.0, 2.0, pytest.approx(4.0))
