"""Clipping bounds every client, noise has the size it should have, and epsilon is accounted for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from fcit.aggregation.privacy import (
    Draws,
    Privacy,
    aggregate,
    epsilon,
    exposures,
    hide_token,
    secret_noise,
)
from fcit.benchmark import schedule
from fcit.recipe.config import validate
from fcit.types import FcitError, Identity, Setting, Stage, State, Task, Update, Weights

SIZE = 20000


def weights(value: float, size: int = 4) -> Weights:
    return {"w": torch.full((size,), value)}


def update(client: int, adapter: Weights, projector: Weights) -> Update:
    return Update(client, 10**client, {"0": adapter}, {"projector": projector}, {})


BEFORE = State({"0": weights(1.0), "1": weights(5.0)}, {"projector": weights(0.0)})


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_without_noise_clients_count_alike_and_no_further_than_the_clip() -> None:
    updates = [update(0, weights(2.0), weights(0.0)), update(3, weights(1.0), weights(50.0))]
    privacy = Privacy(clip_norm=2.0)
    after = aggregate(BEFORE, BEFORE, updates, [2.0, 100.0], privacy, stream())
    assert after.adapters["0"]["w"].tolist() == [1.5] * 4
    assert after.extras["projector"]["w"].tolist() == [0.5] * 4
    assert after.adapters["1"] is BEFORE.adapters["1"]


def test_the_noise_of_a_cohort_is_clip_times_noise_over_its_size() -> None:
    before = State({"0": weights(0.0, SIZE)}, {"projector": weights(0.0, SIZE)})
    updates = [update(k, weights(0.0, SIZE), weights(0.0, SIZE)) for k in range(4)]
    after = aggregate(
        before, before, updates, [0.0] * 4, Privacy(clip_norm=3.0, noise_multiplier=2.0), stream()
    )
    for found in (after.adapters["0"]["w"], after.extras["projector"]["w"]):
        assert float(found.std()) == pytest.approx(3.0 * 2.0 / 4, rel=0.03)
        assert abs(float(found.mean())) < 0.05
    assert not after.adapters["0"]["w"].equal(after.extras["projector"]["w"])


def test_a_token_becomes_one_long_counts_once_and_gets_its_noise() -> None:
    token = Identity(3, "red", torch.ones(SIZE) * 7, 123)
    plain = hide_token(token, Privacy(clip_norm=1.0), stream())
    assert float(plain.token.norm()) == pytest.approx(1.0, rel=1e-4)
    assert plain.samples == 1
    noised = hide_token(token, Privacy(clip_norm=1.0, token_noise=0.5), stream())
    assert float((noised.token - plain.token).std()) == pytest.approx(0.5, rel=0.03)


def test_noise_is_repeatable_only_where_the_recipe_says_so() -> None:
    def draw(privacy: Privacy) -> torch.Tensor:
        return torch.randn(5, generator=privacy.stream(1, "updates", 0, 0))

    assert draw(Privacy(clip_norm=1.0)).equal(draw(Privacy(clip_norm=1.0)))
    secret = Privacy(clip_norm=1.0, seeded_noise=False)
    assert not draw(secret).equal(draw(secret))


def test_epsilon_of_one_full_round_is_that_of_the_gaussian_mechanism() -> None:
    pytest.importorskip("dp_accounting")
    found = epsilon(Privacy(1.0, 2.0, 0.0, 1e-5), [(Draws(9, 9, 1),)], tokens=0)
    assert found["epsilon"] == found["epsilon_updates"]
    # z = 2 / 2 sensitivities: Renyi's bound is min over a of a / 2 + log(1 / delta) / (a - 1) and less
    loose = 0.5 + math.sqrt(2 * math.log(1e5))
    assert 4.0 < found["epsilon"] < loose
    assert found["epsilon_tokens"] == 0.0


def test_epsilon_grows_with_rounds_and_tokens_and_falls_with_noise_and_sampling() -> None:
    pytest.importorskip("dp_accounting")

    def spent(noise: float = 4.0, rounds: int = 10, clients: int = 50, tokens: int = 1) -> float:
        lived = [(Draws(clients, 5, rounds),)]
        found = epsilon(Privacy(1.0, noise, 4.0), lived, tokens)["epsilon"]
        assert found is not None
        return found

    assert spent(rounds=20) > spent() > spent(clients=100)
    assert spent(noise=2.0) > spent() > spent(noise=8.0)
    assert spent(tokens=4) > spent()


def test_without_noise_there_is_no_bound() -> None:
    pytest.importorskip("dp_accounting")
    lived = [(Draws(50, 5, 5),)]
    assert epsilon(Privacy(1.0, 1.0), lived, tokens=1)["epsilon"] is None
    assert epsilon(Privacy(1.0, 0.0), lived, tokens=0)["epsilon"] is None


def test_before_the_first_round_nothing_is_spent() -> None:
    pytest.importorskip("dp_accounting")
    for privacy in (Privacy(1.0, 1.0, 1.0), Privacy(1.0)):
        assert set(epsilon(privacy, [], 0).values()) == {0.0, 1e-5}


RED = Task("red", ("red",))
POOLS = Setting(
    "arrivals",
    (Stage((RED,), clients=(0, 1, 2)), Stage((RED,), clients=(2, 3, 4, 5))),
    clients=7,
    per_round=2,
    rounds=3,
)
TURNS = [turn for stage in schedule.plan(POOLS, 0) for turns in stage for turn in turns]


def test_a_stage_draws_from_its_own_clients() -> None:
    first, second = Draws(3, 2, 3), Draws(4, 2, 3)
    assert exposures(POOLS, TURNS, True) == {(first, second)}
    apart = replace(POOLS, stages=(POOLS.stages[0], Stage((RED,), clients=(3, 4, 5, 6))))
    assert exposures(apart, TURNS, True) == {(first,), (second,)}
    alike = replace(POOLS, stages=(POOLS.stages[0], POOLS.stages[0]))
    assert exposures(alike, TURNS, True) == {(Draws(3, 2, 6),)}
    assert exposures(POOLS, TURNS[:2], True) == {(Draws(3, 2, 1),)}
    assert exposures(POOLS, [], True) == {()}


def test_whoever_is_known_to_be_drawn_has_no_gain_from_sampling() -> None:
    pytest.importorskip("dp_accounting")
    met = Counter(turn.client for turn in TURNS)
    known = exposures(POOLS, TURNS, False)
    assert known == {(Draws(1, 1, rounds),) for rounds in met.values()}
    privacy = Privacy(1.0, 4.0)
    most = epsilon(privacy, [(Draws(1, 1, max(met.values())),)], 0)["epsilon"]
    assert epsilon(privacy, known, 0)["epsilon"] == most
    secret = epsilon(privacy, [(Draws(50, 5, 10),)], 0)["epsilon"]
    public = epsilon(privacy, [(Draws(1, 1, 10),)], 0)["epsilon"]
    assert secret is not None and public is not None
    assert secret < public


def test_the_epsilon_is_that_of_the_client_worst_off() -> None:
    pytest.importorskip("dp_accounting")
    privacy, few, many = Privacy(1.0, 4.0, 4.0), (Draws(1, 1, 2),), (Draws(1, 1, 2), Draws(1, 1, 5))
    for tokens in (0, 2):
        both = epsilon(privacy, [few, many, ()], tokens)
        assert both["epsilon"] == epsilon(privacy, [many], tokens)["epsilon"]
        assert both != epsilon(privacy, [few], tokens)


def test_a_deployments_noise_may_not_come_from_the_recipes_seed() -> None:
    secret_noise(Privacy())
    secret_noise(Privacy(1.0, 1.0, seeded_noise=False))
    with pytest.raises(FcitError, match="privacy.seeded_noise"):
        secret_noise(Privacy(1.0, 1.0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"privacy": {"noise_multiplier": 1.0}}, "clip_norm"),
        ({"privacy": {"clip_norm": 1.0}, "method": {"name": "ewc"}}, "ewc's clients"),
        ({"privacy": {"clip_norm": 1.0}, "method": {"name": "multitask"}}, "multitask"),
        ({"privacy": {"clip_norm": 1.0}, "federation": {"optimizer": "scaffold"}}, "scaffold"),
        ({"privacy": {"clip_norm": 1.0}, "federation": {"robust": "median"}}, "robust"),
        ({"privacy": {"clip_norm": 1.0}, "federation": {"average": "product"}}, "product"),
        ({"privacy": {"clip_norm": 1.0}}, "federation.outlier_factor = 0"),
    ],
)
def test_what_noise_would_not_cover_is_refused(change: dict, said: str) -> None:
    with pytest.raises(FcitError, match=said):
        validate(change)
