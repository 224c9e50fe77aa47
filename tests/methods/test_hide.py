"""HiDe-LLaVA (Guo et al. 2025): anchors, the last layer's shares, and the sum below."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from fcit.methods.base import Query
from fcit.methods.hide import Hide, top
from fcit.types import Identity, Stage, State, Task, Turn

TASK = Task("t", ("t",))
STAGE = Stage((TASK,))
LAYERS = [
    f"model.layers.{number}.mlp.{part}" for number in (0, 1, 10) for part in ("gate", "up", "down")
]


def at(degrees: float) -> torch.Tensor:
    angle = math.radians(degrees)
    return torch.tensor([math.cos(angle), math.sin(angle)])


def token(text: float, image: float) -> torch.Tensor:
    return torch.cat([at(text), at(image)])


def begun(method: Hide) -> State:
    return method.begin(method.start({"w": torch.ones(2)}, {"p": torch.zeros(1)}), STAGE)


def test_every_stage_opens_a_lora_and_trains_it_alone() -> None:
    method = Hide()
    state = begun(method)
    state = method.begin(state, STAGE)
    state = method.organise(state, [Identity(0, "t", token(0, 0), 1)])
    sent = method.send(state, Turn(0, TASK, 1, 0))
    assert list(sent.adapters) == ["1"]
    assert method.trains(sent) == ["1"]


def test_anchors_are_a_stages_mean_weighted_by_samples_and_later_stages_leave_them() -> None:
    method = Hide()
    state = begun(method)
    state = method.organise(state, [Identity(3, "t", token(0, 0), 1)])
    state = method.organise(state, [Identity(1, "t", token(90, 0), 3)])
    want = (token(0, 0) + 3 * token(90, 0)) / 4
    torch.testing.assert_close(state.extras["anchors"]["tokens"][0], want)
    state = method.organise(method.begin(state, STAGE), [Identity(1, "t", token(180, 180), 2)])
    held = state.extras["anchors"]
    torch.testing.assert_close(held["tokens"], torch.stack([want, token(180, 180)]))
    assert held["samples"].tolist() == [4, 2]
    assert method.organise(state, []) is state


def test_a_client_is_asked_once_per_stage_and_task() -> None:
    method = Hide()
    state = begun(method)
    turns = [Turn(0, TASK, 0, 0), Turn(1, TASK, 0, 0)]
    assert method.to_identify(state, turns) == turns
    state = method.organise(state, [Identity(0, "t", token(0, 0), 1)])
    assert method.to_identify(state, turns) == turns[1:]
    later = method.begin(state, STAGE)
    assert method.to_identify(later, turns) == turns


def test_the_shares_are_a_softmax_of_the_mean_cosine_over_a_tenth() -> None:
    method = Hide()
    state = method.organise(begun(method), [Identity(0, "t", token(0, 0), 1)])
    state = method.organise(method.begin(state, STAGE), [Identity(0, "t", token(90, 60), 1)])
    query = torch.cat([5 * at(0), 0.1 * at(60)])  # text like stage 1, image like stage 2
    got = method.route(state, Query("t", query))
    cosines = torch.tensor([(1 + 0.5) / 2, (0 + 1) / 2])
    found = method.similarities(state, Query("t", query))
    assert found == pytest.approx({"0": float(cosines[0]), "1": float(cosines[1])}, rel=1e-4)
    want = (cosines / 0.1).softmax(0).tolist()
    assert list(got) == ["0", "1"]
    assert list(got.values()) == pytest.approx(want, rel=1e-4)
    assert sum(got.values()) == pytest.approx(1)


SHARES = torch.tensor([[0.2, 0.8], [0.9, 0.1]])


@pytest.mark.parametrize(
    ("fields", "below"),
    [
        ({}, torch.ones(2, 2)),
        ({"merge": "mean"}, torch.full((2, 2), 0.5)),
        ({"merge": "routed"}, SHARES),
    ],
    ids=["sum", "mean", "routed"],
)
def test_the_last_layer_is_weighted_and_the_layers_below_are_merged(fields, below) -> None:
    assert top(LAYERS) == set(LAYERS[-3:])
    model = SimpleNamespace(layers=LAYERS, gate=None)
    Hide(**fields).activate(model, SHARES)
    assert set(model.gate) == set(LAYERS)
    for path, gate in model.gate.items():
        assert gate.equal(SHARES if path in LAYERS[-3:] else below)


def test_the_mini_models_last_layer_is_found(lmm) -> None:
    last = top(lmm.layers)
    assert len(last) == 3
    assert lmm.layers[-1] in last
    assert len(lmm.layers) > 3
