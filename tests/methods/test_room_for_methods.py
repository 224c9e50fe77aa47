"""Methods to come fit without bending: per-layer routers that learn and gate, extras averaged by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from fcit.benchmark import datasets
from fcit.methods.base import Method
from fcit.rounds.client import Data, Training, take_turn
from fcit.rounds.evaluate import answer
from fcit.types import Job, Stage, State, Task, Turn, Weights

TASK = Task("IconQA", ("IconQA",))


@dataclass(frozen=True)
class Routed(Method):
    """Two experts and a linear router in every layer (the shape of MoELoRA)."""

    def begin(self, state: State, stage: Stage) -> State:
        state = self.open(self.open(state, "0"), "1")
        widths = {
            key.removesuffix(".lora_A.weight"): value.shape[1]
            for key, value in state.extras["blank"].items()
            if key.endswith(".lora_A.weight")
        }
        router = {layer: torch.zeros(2, width) for layer, width in widths.items()}
        return replace(state, extras=state.extras | {"router": router})

    def send(self, state: State, turn: Turn) -> State:
        return state

    def equip(self, model: Any, received: State) -> None:
        if "router" not in received.extras:
            return
        for layer, weight in received.extras["router"].items():
            linear = torch.nn.Linear(weight.shape[1], 2, bias=False)
            linear.load_state_dict({"weight": weight})
            model.extra[layer.replace(".", "/")] = linear
        model.gate = lambda layer, x: model.extra[f"base_model.model.{layer}".replace(".", "/")](
            x
        ).softmax(-1)

    def activate(self, model: Any, shares: torch.Tensor) -> None:
        """The routers that `equip` set stay in charge."""

    def report(
        self, model: Any, received: State, memory: Weights, batches: Iterable[Any]
    ) -> tuple[dict[str, Weights], Weights]:
        router = {
            layer: model.extra[layer.replace(".", "/")].weight.detach().clone()
            for layer in received.extras["router"]
        }
        return {"router": router}, memory


def test_a_router_per_layer_trains_is_averaged_and_gates_answers(lmm, suite) -> None:
    samples = datasets.read(suite, "IconQA", "train")[:12]
    data = Data(samples, [datasets.image_path(suite, one) for one in samples])
    method = Routed()
    noise = torch.Generator().manual_seed(0)
    blank = lmm.subspaces.blank(4, 0.05, noise)
    state = method.begin(method.start(blank, lmm.base_projector), Stage((TASK,)))
    fresh = {key: torch.randn(v.shape, generator=noise) * 0.05 for key, v in blank.items()}
    state = replace(state, adapters=state.adapters | {"1": fresh})
    updates = []
    for client in (0, 1):
        job = Job(Turn(client, TASK, 0, 0), method.send(state, Turn(client, TASK, 0, 0)))
        training = Training(lr=1e-2, batch_size=6)
        updates.append(take_turn(job, method, lmm, data, training, 0, {})[0])
    after = method.aggregate(state, updates)
    layers = list(after.extras["router"])
    assert len(layers) == len(lmm.subspaces.layers)
    for layer in layers:
        mine, theirs = (update.extras["router"][layer] for update in updates)
        torch.testing.assert_close(after.extras["router"][layer], (mine + theirs) / 2)
    assert any(after.extras["router"][layer].abs().sum() > 0 for layer in layers)
    lmm.receive(after, method.scale)
    method.equip(lmm, after)
    said = answer(lmm, None, method, after, data, 4)
    assert len(said) == 12
    assert callable(lmm.gate)
    lmm.receive(State(), 2.0)
