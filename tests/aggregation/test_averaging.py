"""The exact average of LoRA blocks: the mean product's best approximation, in usable factors."""

from __future__ import annotations

import pytest
import torch

from fcit.aggregation.averaging import exact, product_mean
from fcit.types import State, Update, Weights
from fcit.weights import mean

A, B = "x.lora_A.weight", "x.lora_B.weight"
RANK, WIDE, HIGH = 3, 17, 11


def block(seed: int, near: Weights | None = None) -> Weights:
    """A block of its own, or one that training moved a little away from another."""
    noise = torch.Generator().manual_seed(seed)
    own = {A: torch.randn(RANK, WIDE, generator=noise), B: torch.randn(HIGH, RANK, generator=noise)}
    return own if near is None else {key: near[key] + 0.1 * own[key] for key in own}


def product(block: Weights) -> torch.Tensor:
    return block[B].double() @ block[A].double()


def mean_product(parts: list[Weights], counts: list[int]) -> torch.Tensor:
    total = sum(product(part) * count for part, count in zip(parts, counts, strict=True))
    assert isinstance(total, torch.Tensor)
    return total / sum(counts)


def test_a_projectors_lora_is_averaged_as_a_product_too() -> None:
    def renamed(part: Weights) -> Weights:
        return {"projector.y.A": part[A], "projector.y.B": part[B]}

    parts = [block(seed) for seed in range(3)]
    found = product_mean([renamed(part) for part in parts], [1, 2, 3])
    wanted = renamed(product_mean(parts, [1, 2, 3]))
    assert found.keys() == wanted.keys() and all(found[key].equal(wanted[key]) for key in wanted)


def test_of_one_client_the_product_stays() -> None:
    (one,) = (block(0),)
    assert all(product_mean([one], [7])[key].equal(one[key]) for key in one)
    again = product_mean([one, one], [7, 2])
    torch.testing.assert_close(product(again), product(one), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("clients", [2, 5])
def test_no_block_of_its_rank_is_nearer_to_the_mean_product(clients: int) -> None:
    """Eckart and Young: the error is the norm of the singular values left out."""
    parts, counts = [block(seed) for seed in range(clients)], list(range(1, clients + 1))
    want = mean_product(parts, counts)
    left_out = torch.linalg.svdvals(want)[RANK:]
    merged = product_mean(parts, counts)
    error = (product(merged) - want).norm()
    torch.testing.assert_close(error, left_out.norm(), atol=1e-5, rtol=1e-5)
    assert error < (product(mean(parts, counts)) - want).norm()
    assert merged[A].dtype == parts[0][A].dtype
    assert merged[A].shape == parts[0][A].shape


@pytest.mark.parametrize("shared", [A, B])
def test_where_one_factor_is_shared_it_is_the_plain_average(shared: str) -> None:
    parts = [block(seed) | {shared: block(9)[shared]} for seed in range(4)]
    counts = [3, 1, 2, 5]
    plain, merged = mean(parts, counts), product_mean(parts, counts)
    torch.testing.assert_close(product(merged), product(plain), atol=1e-5, rtol=1e-5)


def test_factors_are_balanced() -> None:
    merged = product_mean([block(0), block(1)], [1, 1])
    torch.testing.assert_close(merged[A] @ merged[A].T, merged[B].T @ merged[B])


def test_a_small_change_of_the_product_is_a_small_change_of_the_factors() -> None:
    """Nothing but the turn towards the mean factors fixes signs, order and rotation."""
    start = product_mean([block(0), block(1)], [1, 1])  # balanced, as it is after a round
    parts = [block(seed, near=start) for seed in (5, 6)]
    plain, merged = mean(parts, [1, 1]), product_mean(parts, [1, 1])
    for key in (A, B):
        assert (merged[key] - plain[key]).norm() < 0.5 * (plain[key] - start[key]).norm()


def test_a_direction_without_weight_can_still_learn() -> None:
    parts = [block(seed) for seed in range(2)]
    for part in parts:
        part[B][:, 1:] = 0
        part[A] = block(4)[A]
    for merged in (
        product_mean(parts, [1, 1]),
        product_mean([part | {B: torch.zeros(HIGH, RANK)} for part in parts], [1, 1]),
    ):
        assert torch.linalg.svdvals(merged[A]).min() > 0.1
    assert product(merged).norm() == 0


def test_a_layer_narrower_than_the_rank_is_no_obstacle() -> None:
    parts = [{A: torch.randn(4, 2), B: torch.randn(3, 4)} for _ in range(2)]
    merged = product_mean(parts, [1, 1])
    assert (merged[A].shape, merged[B].shape) == ((4, 2), (3, 4))
    torch.testing.assert_close(product(merged), mean_product(parts, [1, 1]), atol=1e-5, rtol=1e-5)


def test_every_adapter_that_came_back_is_averaged_exactly_and_all_else_as_ever() -> None:
    projector = {"projector.w": torch.ones(2)}
    sent = [block(seed) | {"projector.w": torch.full((2,), float(seed))} for seed in range(3)]
    updates = [
        Update(0, 1, {"0": sent[0]}, {}, {}),
        Update(1, 3, {"0": sent[1]}, {}, {}),
        Update(2, 4, {"1": sent[2]}, {}, {}),
    ]
    averaged = {"0": mean(sent[:2], [1, 3]), "1": sent[2], "2": block(8) | projector}
    after = exact(State(averaged), updates)
    want = product_mean(sent[:2], [1, 3])
    assert all(after.adapters["0"][key].equal(want[key]) for key in want)
    assert after.adapters["0"]["projector.w"].equal(averaged["0"]["projector.w"])
    assert all(after.adapters["1"][key].equal(sent[2][key]) for key in sent[2])
    assert after.adapters["2"] is averaged["2"]


def test_the_number_of_threads_is_as_before_and_changes_no_bit() -> None:
    parts, before = [block(seed) for seed in range(5)], torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(product_mean(parts, [1] * 5))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(found[0][key].equal(found[1][key]) for key in found[0])
