"""FedEx-LoRA: what answers is exactly the mean of the clients' models, whatever the round."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fcit.methods.fedex_lora import FedexLora, folded
from fcit.recipe.config import validate
from fcit.types import FcitError, Stage, State, Task, Turn, Update, Weights
from fcit.weights import factors

LAYERS = {"mlp.up": (6, 10), "mlp.down": (10, 6)}
COUNTS = (1, 5, 2)
TASK = Task("IconQA", ("IconQA",))
METHOD = FedexLora(rank=4)


def block(seed: int) -> Weights:
    noise = torch.Generator().manual_seed(seed)
    return {
        f"base_model.model.{path}.lora_{side}.weight": torch.randn(shape, generator=noise)
        for path, (wide, out) in LAYERS.items()
        for side, shape in (("A", (4, wide)), ("B", (out, 4)))
    }


def served(state: State) -> dict[str, Tensor]:
    total = {path: torch.zeros(out, wide) for path, (wide, out) in LAYERS.items()}
    for adapter in state.adapters.values():
        for path, (a, b) in factors(adapter).items():
            total[path] = total[path] + b @ a
    return total


def test_what_answers_is_the_mean_of_the_clients_models_in_every_round() -> None:
    state = METHOD.begin(METHOD.start(block(0), {}), Stage((TASK,)))
    for number in range(4):
        received = METHOD.send(state, Turn(0, TASK, 0, number))
        assert METHOD.expects(received).adapters.keys() == {"0"}
        sent = [block(10 * number + client) for client in (1, 2, 3)]
        clients = [served(replace(received, adapters=received.adapters | {"0": b})) for b in sent]
        updates = [
            Update(client, count, {"0": weights}, {}, {})
            for client, (count, weights) in enumerate(zip(COUNTS, sent, strict=True))
        ]
        state = METHOD.aggregate(state, updates)
        for path, delta in served(state).items():
            want = sum(n / 8 * own[path] for n, own in zip(COUNTS, clients, strict=True))
            torch.testing.assert_close(delta, want, rtol=1e-5, atol=1e-5)
        assert len(state.adapters) == (3 if not number else 1 + 2)  # min(6, 10) / 4, rounded up
        shapes = {key: value.shape for key, value in state.adapters["0"].items()}
        for weights in state.adapters.values():
            assert {key: value.shape for key, value in weights.items()} == shapes


def test_a_single_client_leaves_no_residual() -> None:
    state = METHOD.begin(METHOD.start(block(0), {}), Stage((TASK,)))
    after = METHOD.aggregate(state, [Update(0, 3, {"0": block(1)}, {}, {})])
    assert after.adapters.keys() == {"0"}
    assert folded([]) == []


@pytest.mark.parametrize("section", ["federation", "privacy"])
def test_what_would_leave_the_residual_behind_is_refused(section: str) -> None:
    table = {"federation": {"average": "product"}, "privacy": {"clip_norm": 1.0}}
    key = f"{section}.{next(iter(table[section]))}"
    with pytest.raises(FcitError, match=f'{key}.* with method.name = "fedex_lora": '):
        validate({"method": {"name": "fedex_lora"}, section: table[section]})
