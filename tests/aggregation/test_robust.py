"""A few byzantine clients do not steer a cohort's aggregate; a cohort too small for a rule says so."""

from __future__ import annotations

import pytest
import torch

from fcit.aggregation.robust import Rule, aggregate, byzantine, krum, suffices, trimmed_mean
from fcit.types import State, Update, Weights

RULES: list[Rule] = ["median", "trimmed", "krum"]


def block(*values: float) -> Weights:
    return {"a": torch.tensor(values), "b": torch.full((2, 2), values[0])}


def update(client: int, weights: Weights, samples: int = 1, name: str = "0") -> Update:
    return Update(client, samples, {name: weights}, {"projector": weights}, {})


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    cohort = [block(value) for value in (1.0, 2.0, 4.0, 100.0)]
    assert trimmed_mean(cohort, 1)["a"].tolist() == [3.0]
    assert trimmed_mean(cohort[1:], 1)["a"].tolist() == [4.0]


def test_a_trimmed_mean_cuts_both_ends_of_every_coordinate() -> None:
    cohort = [
        block(-99.0, 1.0),
        block(1.0, 2.0),
        block(2.0, 3.0),
        block(3.0, 4.0),
        block(9.0, 99.0),
    ]
    assert trimmed_mean(cohort, 1)["a"].tolist() == [2.0, 3.0]


def test_krum_chooses_the_update_with_the_nearest_neighbours() -> None:
    cohort = [block(0.0), block(1.1), block(1.0), block(0.9), block(50.0)]
    assert krum(cohort, malicious=1) == 2


def test_a_share_that_is_a_whole_number_of_clients_is_not_rounded_up() -> None:
    assert byzantine(25, 0.28) == 7  # 25 * 0.28 > 7 in binary
    assert [byzantine(10, share) for share in (0.0, 0.05, 0.1, 0.11)] == [0, 1, 1, 2]


@pytest.mark.parametrize("rule", RULES)
def test_a_fifth_of_byzantine_clients_keeps_the_aggregate_in_the_honest_range(
    rule: Rule,
) -> None:
    honest = [update(client, block(1.0 + 0.01 * client, -1.0)) for client in range(8)]
    byzantine = [update(client, block(-1000.0, 1000.0), samples=10**6) for client in (8, 9)]
    means = State({"0": block(-800.0, 800.0)}, {"projector": block(0.0, 0.0)})
    after, notes = aggregate(means, [*honest, *byzantine], rule, 0.2)
    assert not notes
    for found in (after.adapters["0"], after.extras["projector"]):
        assert 1.0 <= float(found["a"][0]) <= 1.07
        assert float(found["a"][1]) == -1.0
        assert found["b"].shape == (2, 2)


@pytest.mark.parametrize("rule", RULES)
def test_a_cohort_too_small_keeps_the_mean_and_is_named(rule: Rule) -> None:
    means = State({"0": block(5.0), "1": block(7.0)}, {"projector": block(0.0)})
    updates = [
        update(0, block(1.0)),
        update(1, block(9.0)),
        *(update(client, block(2.0), name="1") for client in range(2, 9)),
    ]
    after, notes = aggregate(means, updates, rule, 0.2)
    assert notes == [f"0: 2 clients are too few for {rule}; mean"]
    assert after.adapters["0"] is means.adapters["0"]
    assert after.adapters["1"]["a"].tolist() == [2.0]


def test_how_large_a_cohort_each_rule_needs() -> None:
    least = {
        rule: min(n for n in range(1, 99) if suffices(rule, n, 0.2)) for rule in ("mean", *RULES)
    }
    assert least == {"mean": 1, "median": 3, "trimmed": 3, "krum": 5}
    assert not suffices("krum", 6, 0.2)
    assert suffices("krum", 20, 0.2)
    assert not suffices("trimmed", 3, 0.45)
