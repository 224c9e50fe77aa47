"""Clipping bounds every client, noise has the size it should have, and epsilon is accounted for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from fcit.aggregation.privacy import (
    Privacy,
    aggregate,
    bound_token,
    draws_are_secret,
    epsilon,
    exposures,
    hide_token,
    secret_noise,
)
from fcit.benchmark import schedule
from fcit.recipe.config import validate
from fcit.seeds import noise_stream
from fcit.types import FcitError, Identity, Setting, Stage, State, Task, Turn, Update, Weights

SIZE = 20000


def weights(value: float, size: int = 4) -> Weights:
    return {"w": torch.full((size,), value)}


def update(client: int, adapter: Weights, projector: Weights) -> Update:
    return Update(client, 10**client, {"0": adapter}, {"projector": projector}, {})


BEFORE = State({"0": weights(1.0), "1": weights(5.0)}, {"projector": weights(0.0)})


def expected(updates: list[Update]) -> list[State]:
    return [State(dict(one.adapters), dict(one.extras)) for one in updates]


def stream() -> np.random.Generator:
    return noise_stream(0, "test")


def test_noise_comes_from_more_streams_than_can_be_tried() -> None:
    """torch.Generator.manual_seed keeps 32 bits of a seed: there are no more different streams."""
    privacy = Privacy(clip_norm=1.0, noise_multiplier=1.0, seeded_noise=False)
    assert privacy.stream(0, "x").bit_generator.state != privacy.stream(0, "x").bit_generator.state
    seeded = replace(privacy, seeded_noise=True)
    first, same, other = (seeded.stream(seed, "x").standard_normal(4) for seed in (0, 0, 1))
    assert (first == same).all() and (first != other).all()
    for one in (seeded, privacy):
        seed = one.stream(0, "x").bit_generator.seed_seq
        assert seed.pool_size * 32 == 256 and seed.entropy.bit_length() > 200


def test_without_noise_clients_count_alike_and_no_further_than_the_clip() -> None:
    updates = [update(0, weights(2.0), weights(0.0)), update(3, weights(1.0), weights(50.0))]
    privacy = Privacy(clip_norm=2.0)
    after = aggregate(BEFORE, BEFORE, expected(updates), updates, [2.0, 100.0], privacy, stream())
    assert after.adapters["0"]["w"].tolist() == [1.5] * 4
    assert after.extras["projector"]["w"].tolist() == [0.5] * 4
    assert after.adapters["1"] is BEFORE.adapters["1"]


def test_the_noise_of_a_cohort_is_clip_times_noise_over_its_size() -> None:
    before = State({"0": weights(0.0, SIZE)}, {"projector": weights(0.0, SIZE)})
    updates = [update(k, weights(0.0, SIZE), weights(0.0, SIZE)) for k in range(4)]
    privacy = Privacy(clip_norm=3.0, noise_multiplier=2.0)
    after = aggregate(before, before, expected(updates), updates, [0.0] * 4, privacy, stream())
    for noised in (after.adapters["0"]["w"], after.extras["projector"]["w"]):
        assert float(noised.std()) == pytest.approx(3.0 * 2.0 / 4, rel=0.03)
        assert abs(float(noised.mean())) < 0.05
    assert not after.adapters["0"]["w"].equal(after.extras["projector"]["w"])


def test_a_client_that_sent_nothing_changes_neither_the_noise_nor_the_count() -> None:
    before = State({"0": weights(0.0, SIZE), "1": weights(0.0, SIZE)}, {})
    asked = [State({name: before.adapters[name]}) for name in ("0", "0", "1")]
    sent = [Update(0, 5, {"0": weights(1.0, SIZE)}, {}, {})]
    privacy = Privacy(clip_norm=3.0, noise_multiplier=2.0)
    after = aggregate(before, before, asked, sent, [0.0], privacy, stream())
    for name, mean, count in (("0", 0.5, 2), ("1", 0.0, 1)):
        noised = after.adapters[name]["w"]
        assert float(noised.std()) == pytest.approx(6.0 / count, rel=0.03)
        assert float(noised.mean()) == pytest.approx(mean, abs=0.15)


def test_a_token_becomes_one_long_counts_once_and_gets_its_noise() -> None:
    token = Identity(3, "red", torch.ones(SIZE) * 7, 123)
    plain = hide_token(token, Privacy(clip_norm=1.0), stream())
    assert float(plain.token.norm()) == pytest.approx(1.0, rel=1e-4)
    assert plain.samples == 1
    noised = hide_token(token, Privacy(clip_norm=1.0, token_noise=0.5), stream())
    assert float((noised.token - plain.token).std()) == pytest.approx(0.5, rel=0.03)


def test_no_token_weighs_more_than_an_honest_one_can() -> None:
    privacy = Privacy(clip_norm=1.0, token_noise=0.5)
    honest = [
        hide_token(Identity(0, "A", torch.ones(64), 9), privacy, noise_stream(seed, "token"))
        for seed in range(50)
    ]
    assert all(torch.equal(bound_token(each, privacy).token, each.token) for each in honest)
    huge = bound_token(Identity(1, "A", torch.full((64,), 1e8), 2**31 - 1), privacy)
    assert huge.samples == 1
    assert float(huge.token.norm()) == pytest.approx(1 + 0.5 * (8 + 6))
    assert torch.allclose(huge.token / huge.token.norm(), torch.full((64,), 1 / 8))


def test_noise_is_repeatable_only_where_the_recipe_says_so() -> None:
    def draw(privacy: Privacy) -> torch.Tensor:
        return torch.from_numpy(privacy.stream(1, "updates", 0, 0).standard_normal(5))

    assert draw(Privacy(clip_norm=1.0)).equal(draw(Privacy(clip_norm=1.0)))
    secret = Privacy(clip_norm=1.0, seeded_noise=False)
    assert not draw(secret).equal(draw(secret))


RED, BLUE = Task("red", ("red",)), Task("blue", ("blue",))


def setting(clients: int, per_round: int, rounds: int, *tasks: Task) -> Setting:
    return Setting("s", (Stage(tasks or (RED,)),), clients, per_round, rounds)


def turns_of(setting: Setting) -> list[Turn]:
    return [turn for stage in schedule.plan(setting, 0) for turns in stage for turn in turns]


def spent(privacy: Privacy, setting: Setting, tokens: int = 0, secret: bool = False) -> dict:
    pytest.importorskip("dp_accounting")
    return epsilon(privacy, setting, turns_of(setting), tokens, secret)


def test_epsilon_of_one_full_round_is_that_of_the_gaussian_mechanism() -> None:
    both = [spent(Privacy(1.0, 2.0, 0.0, 1e-5), setting(9, 9, 1), 0, secret) for secret in (0, 1)]
    assert both[0] == both[1]
    assert both[0]["epsilon"] == both[0]["epsilon_updates"]
    # z = 2 / 2 sensitivities: Renyi's bound is min over a of a / 2 + log(1 / delta) / (a - 1) and less
    loose = 0.5 + math.sqrt(2 * math.log(1e5))
    assert 4.0 < both[0]["epsilon"] < loose
    assert both[0]["epsilon_tokens"] == 0.0


def test_a_token_costs_as_much_as_an_update_with_the_same_noise() -> None:
    """A token has length 1, so replacing it moves it by 2 at most: as an update of two clips."""
    found = spent(Privacy(1.0, 2.0, 2.0, 1e-5), setting(9, 9, 1), tokens=1)
    assert found["epsilon_tokens"] == found["epsilon_updates"] > 0
    twice = spent(Privacy(1.0, 2.0, 0.0, 1e-5), setting(9, 9, 2))
    assert found["epsilon"] == twice["epsilon_updates"]


def test_epsilon_grows_with_rounds_and_tokens_and_falls_with_noise() -> None:
    def total(noise: float = 4.0, rounds: int = 10, tokens: int = 1) -> float:
        return spent(Privacy(1.0, noise, 4.0), setting(50, 5, rounds), tokens)["epsilon"]

    assert total(rounds=40) > total() > total(tokens=0)
    assert total(noise=2.0) > total() > total(noise=8.0)
    assert total(tokens=4) > total()


def test_without_noise_there_is_no_bound() -> None:
    assert spent(Privacy(1.0, 1.0), setting(50, 5, 5), tokens=1)["epsilon"] is None
    for secret in (False, True):
        assert spent(Privacy(1.0, 0.0), setting(50, 5, 5), 0, secret)["epsilon"] is None


def test_before_the_first_round_nothing_is_spent() -> None:
    pytest.importorskip("dp_accounting")
    for privacy in (Privacy(1.0, 1.0, 1.0), Privacy(1.0)):
        for secret in (False, True):
            values = epsilon(privacy, setting(5, 2, 1), [], 0, secret).values()
            assert set(values) == {0.0, 1e-5}


POOLS = Setting(
    "arrivals",
    (Stage((RED,), clients=(0, 1, 2)), Stage((RED,), clients=(2, 3, 4, 5))),
    clients=7,
    per_round=2,
    rounds=3,
)


def test_a_stage_draws_from_its_own_clients() -> None:
    turns = turns_of(POOLS)
    assert exposures(POOLS, turns) == {((3, 3),), ((3, 3), (4, 3)), ((4, 3),), ()}
    alike = replace(POOLS, stages=(POOLS.stages[0], POOLS.stages[0]))
    assert exposures(alike, turns_of(alike)) == {((3, 6),), ()}
    assert exposures(POOLS, turns[:2]) == {((3, 1),), ()}
    assert exposures(POOLS, []) == {()}


def test_whoever_is_known_to_be_drawn_has_no_gain_from_sampling() -> None:
    """The two numbers of docs/privacy.md."""
    privacy, small = Privacy(1.0, 8.0, 0.0, 1e-5), setting(50, 5, 10)
    most = max(Counter(turn.client for turn in turns_of(small)).values())
    assert (most, spent(privacy, small)["epsilon"]) == (3, 1.8473)
    assert spent(privacy, small, secret=True)["epsilon"] == 0.6189


def test_the_smaller_of_the_two_bounds_holds() -> None:
    """A stage of many rounds with a large share drawn: sampling's bound is the worse one."""
    privacy, dense = Privacy(1.0, 4.0), setting(10, 9, 3)
    assert spent(privacy, dense, secret=True) == spent(privacy, dense)


@pytest.mark.parametrize(
    ("changes", "secret"),
    [
        ({}, True),
        ({"privacy": Privacy(1.0, 1.0, seeded_noise=False)}, False),
        ({"from_the_seed": False}, False),
        ({"named": True}, False),
        ({"setting": setting(9, 2, 1, RED, BLUE)}, False),
    ],
)
def test_draws_are_secret_only_where_nothing_tells_them(changes: dict, secret: bool) -> None:
    whole = {
        "privacy": Privacy(1.0, 1.0),
        "setting": setting(9, 2, 1),
        "from_the_seed": True,
        "named": False,
    }
    assert draws_are_secret(**whole | changes) == secret


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
