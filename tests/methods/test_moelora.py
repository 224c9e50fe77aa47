"""A mixture of LoRA experts (Liu et al. 2023; CoIN, Chen et al. 2024): routers in every layer."""

from __future__ import annotations

import torch

from fcit.benchmark import datasets
from fcit.methods.base import Query
from fcit.methods.moelora import Moelora, shares
from fcit.rounds.client import Data, Training, take_turn
from fcit.seeds import torch_stream
from fcit.types import Job, Stage, State, Task, Turn
from fcit.weights import factors

TASK = Task("IconQA", ("IconQA",))
STAGE = Stage((TASK,))
BLANK = {
    "base_model.model.layers.0.up.lora_A.weight": torch.ones(2, 3),
    "base_model.model.layers.0.up.lora_B.weight": torch.zeros(5, 2),
}


def test_a_routers_shares_are_positive_and_sum_to_one_for_every_token() -> None:
    noise = torch_stream(0, "x")
    x, router = torch.randn(2, 4, 6, generator=noise), torch.randn(3, 6, generator=noise)
    got = shares(x, router)
    assert got.shape == (2, 4, 3)
    assert bool((got > 0).all())
    torch.testing.assert_close(got.sum(-1), torch.ones(2, 4))
    torch.testing.assert_close(shares(x, torch.zeros(3, 6)), torch.full((2, 4, 3), 1 / 3))


def test_experts_start_apart_and_their_routers_even() -> None:
    state = Moelora(experts=3).start(BLANK, {"p": torch.zeros(1)}, seed=1)
    assert list(state.adapters) == ["0", "1", "2"]
    first, second, third = (factors(state.adapters[k])["layers.0.up"][0] for k in "012")
    assert not first.equal(second) and not second.equal(third)
    assert state.extras["router"]["layers.0.up"].equal(torch.zeros(3, 3))
    again = Moelora(experts=3).start(BLANK, {"p": torch.zeros(1)}, seed=1)
    assert factors(again.adapters["1"])["layers.0.up"][0].equal(second)
    other = Moelora(experts=3).start(BLANK, {"p": torch.zeros(1)}, seed=2)
    assert not factors(other.adapters["1"])["layers.0.up"][0].equal(second)


def test_eight_experts_of_rank_one_have_the_lora_weights_of_rank_eight() -> None:
    def size(weights) -> int:
        return sum(value.numel() for value in weights.values())

    def blank(rank: int) -> dict[str, torch.Tensor]:
        ends = ("A.weight", torch.ones(rank, 3)), ("B.weight", torch.zeros(5, rank))
        return {f"base_model.model.layers.0.up.lora_{end}": value for end, value in ends}

    equal = Moelora(rank=1).start(blank(1), {"p": torch.zeros(1)})
    assert sum(size(expert) for expert in equal.adapters.values()) == size(blank(8))


def test_experts_and_routers_travel_and_nothing_else() -> None:
    method = Moelora(experts=2)
    state = method.begin(method.start(BLANK, {"p": torch.zeros(1)}), STAGE)
    sent = method.send(state, Turn(0, TASK, 0, 0))
    assert list(sent.adapters) == ["0", "1"]
    assert set(sent.extras) == {"router", "projector"}
    assert method.route(state, Query("IconQA", None)) == {}


def test_equal_experts_are_one_lora_whatever_the_routers_say_and_routers_learn(lmm, suite) -> None:
    samples = datasets.read(suite, "IconQA", "train")[:4]
    data = Data(samples, [datasets.image_path(suite, one) for one in samples])
    batch = lmm.batch(data.samples, data.images)
    noise = torch_stream(0, "blocks")
    blank = lmm.subspaces.blank(4, 0.05, noise)
    one = {key: torch.randn(v.shape, generator=noise) * 0.05 for key, v in blank.items()}
    lmm.receive(State({"0": one}), 2.0)
    want = lmm.logits(batch)[0].detach()
    method = Moelora(rank=4, experts=3)
    state = method.begin(method.start(blank, lmm.base_projector, seed=3), STAGE)
    router = {
        path: torch.randn(value.shape, generator=noise)
        for path, value in state.extras["router"].items()
    }
    assert set(router) == set(lmm.layers)
    equal = State(dict.fromkeys("012", one), state.extras | {"router": router})
    lmm.receive(equal, 2.0)
    method.equip(lmm, equal)
    torch.testing.assert_close(lmm.logits(batch)[0].detach(), want, rtol=1e-3, atol=1e-4)
    received = method.send(State(state.adapters, equal.extras), Turn(0, TASK, 0, 0))
    job = Job(Turn(0, TASK, 0, 0), received)
    update, _ = take_turn(job, method, lmm, data, Training(lr=1e-2, batch_size=2), 0, {})
    assert list(update.adapters) == ["0", "1", "2"]
    assert all(not update.extras["router"][path].equal(router[path]) for path in router)
    lmm.receive(State(), 2.0)
