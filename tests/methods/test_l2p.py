"""Learning to Prompt (Wang et al. 2022): which prompts an input chooses, and what learns from it."""

from __future__ import annotations

import pytest
import torch

from fcit.benchmark import datasets
from fcit.methods.l2p import L2p, choice, distance, pick, query
from fcit.rounds.client import Data, Training, take_turn
from fcit.rounds.evaluate import answer
from fcit.seeds import torch_stream
from fcit.types import Job, Stage, State, Task, Turn

TASK = Task("IconQA", ("IconQA",))
STAGE = Stage((TASK,))


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch_stream(seed, "l2p"))


def test_the_five_keys_nearest_by_cosine_are_chosen_the_nearest_first() -> None:
    queries, keys = drawn(3, 8), drawn(10, 8, seed=1)
    keys[4] *= 100  # a long key is no nearer
    chosen = choice(queries, keys, 5)
    for row, one in enumerate(queries):
        cosines = [float(torch.cosine_similarity(one, key, dim=0)) for key in keys]
        want = sorted(range(10), key=lambda i: -cosines[i])[:5]
        assert chosen[row].tolist() == want


def test_chosen_prompts_stand_one_after_another() -> None:
    prompts = drawn(4, 2, 3)
    got = pick(prompts, torch.tensor([[2, 0], [1, 3]]))
    assert got.shape == (2, 4, 3)
    assert got[0].equal(torch.cat([prompts[2], prompts[0]]))
    assert got[1].equal(torch.cat([prompts[1], prompts[3]]))


def test_keys_are_drawn_to_the_queries_that_chose_them() -> None:
    queries, keys = drawn(1, 8), drawn(10, 8, seed=1).requires_grad_()
    assert distance(queries, queries.repeat(5, 1), 5).item() == pytest.approx(0, abs=1e-5)
    before = distance(queries, keys, 3)
    cosines = torch.cosine_similarity(queries, keys, dim=1).sort(descending=True).values
    torch.testing.assert_close(before.detach(), (1 - cosines[:3]).sum().detach())
    before.backward()
    assert keys.grad is not None
    with torch.no_grad():
        after = distance(queries, keys - 0.1 * keys.grad, 3)
    assert after.item() < before.item()


def test_the_pool_fits_the_model_and_is_all_that_travels() -> None:
    blank = {
        "base_model.model.layers.0.up.lora_A.weight": torch.ones(2, 3),
        "base_model.model.layers.0.up.lora_B.weight": torch.zeros(5, 2),
        "base_model.model.layers.0.down.lora_A.weight": torch.ones(2, 5),
        "base_model.model.layers.0.down.lora_B.weight": torch.zeros(3, 2),
    }
    method = L2p()
    state = method.begin(method.start(blank, {"p": torch.zeros(1)}, seed=4), STAGE)
    assert not state.adapters
    shapes = {name: tuple(value.shape) for name, value in state.extras["pool"].items()}
    assert shapes == {"prompt": (10, 5, 3), "key": (10, 3)}
    sent = method.send(state, Turn(0, TASK, 0, 0))
    assert set(sent.extras) == {"pool", "projector"}


def test_the_pool_starts_as_the_recipe_says() -> None:
    blank = {
        "base_model.model.layers.0.up.lora_A.weight": torch.ones(2, 60),
        "base_model.model.layers.0.up.lora_B.weight": torch.zeros(90, 2),
    }

    def pool(**fields) -> torch.Tensor:
        state = L2p(**fields).start(blank, {"p": torch.zeros(1)}, seed=4)
        return torch.cat([value.flatten() for value in state.extras["pool"].values()])

    uniform = pool()
    assert 0 <= uniform.min() < 1e-4 and 0.0099 < uniform.max() < 0.01
    assert uniform.equal(pool()) and not uniform.equal(pool(start_range=1.0) / 50)
    torch.testing.assert_close(pool(start_range=1.0) / 100, uniform)
    symmetric = pool(start_from="symmetric", start_range=1.0)
    torch.testing.assert_close(symmetric, uniform * 200 - 1, rtol=1e-4, atol=1e-4)
    normal = pool(start_from="normal", start_range=0.02)
    assert float(normal.std()) == pytest.approx(0.02, rel=0.05)
    assert abs(float(normal.mean())) < 0.002


def test_on_a_model_only_the_chosen_prompts_and_keys_learn_and_answers_use_them(lmm, suite) -> None:
    samples = datasets.read(suite, "IconQA", "train")[:4]
    data = Data(samples, [datasets.image_path(suite, one) for one in samples])
    method = L2p(pool=8, length=2, top_k=2, projector="frozen")
    noise = torch_stream(0, "init")
    blank = lmm.subspaces.blank(1, 0.05, noise)
    state = method.begin(method.start(blank, lmm.base_projector, seed=3), STAGE)
    pool = state.extras["pool"]
    turn = Turn(0, TASK, 0, 0)
    job = Job(turn, method.send(state, turn))
    update, _ = take_turn(job, method, lmm, data, Training(lr=1e-3, batch_size=4), 0, {})
    queries = query(lmm.base_embeds(lmm.batch(data.samples, data.images)))
    chosen = set(choice(queries, pool["key"], 2).flatten().tolist())
    assert 2 <= len(chosen) < 8
    assert not update.adapters
    for name, before in pool.items():
        after = update.extras["pool"][name]
        moved = {row for row in range(8) if not after[row].equal(before[row])}
        assert moved == chosen, name
    after = method.aggregate(state, [update])
    assert after.extras["pool"]["key"].equal(update.extras["pool"]["key"])
    lmm.receive(after, method.scale)
    method.equip(lmm, after)
    said = answer(lmm, None, method, after, data, 4)
    assert [one.activation for one in said] == [{}] * 4
    lmm.receive(State(), 2.0)
