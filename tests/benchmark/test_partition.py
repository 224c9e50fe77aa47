"""Partition: every sample dealt once, sizes by largest remainder, the same for one seed."""

from __future__ import annotations

import pytest

from fcit.benchmark.partition import _filled, _rounded, some, split
from fcit.seeds import numpy_stream
from fcit.types import FcitError, Sample


def test_golden_split():
    rng = numpy_stream(7, "partition", "IconQA")
    assert rng.permutation(12).tolist() == [7, 11, 1, 0, 5, 2, 3, 9, 6, 8, 10, 4]
    shares = [round(float(share), 4) for share in rng.dirichlet([1.0] * 3)]
    assert shares == [0.3844, 0.5074, 0.1082]
    # of 12 samples: 4.61, 6.09 and 1.30, so the first is rounded up: 5, 6 and 1 of the permutation
    assert split(12, 3, 1.0, 7, "IconQA") == [[0, 1, 5, 7, 11], [2, 3, 6, 8, 9, 10], [4]]


def test_largest_remainder_by_hand():
    assert _rounded([0.5, 0.3, 0.2], 7) == [4, 2, 1]  # 3.5 2.1 1.4
    assert _rounded([0.25, 0.25, 0.25, 0.25], 6) == [2, 2, 1, 1]  # ties: the smaller id
    assert _rounded([1.0, 0.0], 5) == [5, 0]


def test_minimum_is_taken_from_the_largest_by_hand():
    assert _filled([7, 0, 1], 2) == [4, 2, 2]
    assert _filled([0, 5, 5], 3) == [3, 3, 4]
    assert _filled([3, 3], 3) == [3, 3]


@pytest.mark.parametrize("beta", [1e-6, 0.05, 0.5, 1.0, 5.0, 1e6])
def test_no_sample_is_lost_or_dealt_twice_and_nobody_is_below_the_minimum(beta):
    for seed in range(30):
        count, clients, minimum = 50 + 37 * seed, 1 + seed, seed % 3
        count = max(count, clients * minimum)
        parts = split(count, clients, beta, seed, "DVQA", minimum)
        assert len(parts) == clients
        assert sorted(index for part in parts for index in part) == list(range(count))
        assert min(map(len, parts)) >= minimum
        assert all(part == sorted(part) for part in parts)


def test_split_depends_on_seed_and_dataset_and_nothing_else():
    first = split(300, 10, 0.5, 0, "DVQA")
    assert split(300, 10, 0.5, 0, "DVQA") == first
    assert split(300, 10, 0.5, 1, "DVQA") != first
    assert split(300, 10, 0.5, 0, "IconQA") != first


def test_smaller_beta_is_more_unequal():
    def spread(beta: float) -> float:
        largest = [max(map(len, split(1000, 10, beta, seed, "x"))) for seed in range(20)]
        return sum(largest) / len(largest)

    assert spread(0.5) > spread(1.0) > spread(5.0) > 100


def test_all_must_have_the_minimum_exactly():
    parts = split(20, 5, 0.1, 0, "x", minimum=4)
    assert [len(part) for part in parts] == [4] * 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((9, 5, 1.0, 0, "DVQA", 2), "DVQA: 9 training samples are too few for 5 clients"),
    ],
)
def test_what_cannot_be_split_is_refused(arguments, said):
    with pytest.raises(FcitError, match=said):
        split(*arguments)


def in_class_order(**counts: int) -> list[Sample]:
    answers = [answer for answer, count in counts.items() for _ in range(count)]
    return [Sample(str(at), "x", "", "", (answer,)) for at, answer in enumerate(answers)]


def test_some_samples_keep_every_answers_share() -> None:
    whole = in_class_order(a=50, b=30, c=20)
    for seed in range(5):
        chosen = some(whole, 10, seed, "x/test")
        assert [one.answers[0] for one in chosen] == ["a"] * 5 + ["b"] * 3 + ["c"] * 2
        assert [int(one.id) for one in chosen] == sorted({int(one.id) for one in chosen})
    assert (
        some(whole, 10, 0, "x/test") == some(whole, 10, 0, "x/test") != some(whole, 10, 1, "x/test")
    )
    assert some(whole, 10, 0, "x/test") != some(whole, 10, 0, "x/train")
    assert some(whole, 100, 0, "x") == some(whole, 200, 0, "x") == whole


def test_some_of_all_different_answers_are_drawn_alike() -> None:
    whole = [Sample(str(at), "x", "", "", (str(at),)) for at in range(40)]
    times = [0] * 40
    for seed in range(400):
        for one in some(whole, 10, seed, "x"):
            times[int(one.id)] += 1
    assert sum(times) == 4000
    assert all(60 < count < 140 for count in times)
