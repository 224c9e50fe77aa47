"""A model spread over several GPUs (`model.device_map`): its layers, and so a method's terms, are on
different ones. Fake tensors have devices without any GPU."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fcit.methods.ewc import Ewc
from fcit.methods.moelora import shares
from fcit.methods.olora import Olora
from fcit.types import State, Weights
from fcit.weights import tensor_names

PLACES = {"layers.0.up": "cuda:0", "layers.1.up": "cuda:1"}


@pytest.fixture(autouse=True)
def two_gpus() -> Iterator[None]:
    with FakeTensorMode():
        yield


def block(places: dict[str, str]) -> Weights:
    pairs = [(*tensor_names(path), place) for path, place in places.items()]
    downs = {a: torch.ones(2, 3, device=place) for a, _, place in pairs}
    return downs | {b: torch.ones(5, 2, device=place) for _, b, place in pairs}


class Spread:
    """A model whose layers are on two GPUs, and whose loss is on the last."""

    def live(self, name: str) -> Weights:
        return block(PLACES)

    def loss(self, batch: object) -> torch.Tensor:
        return torch.ones((), device="cuda:1")


def test_penalties_are_added_up_and_to_the_loss() -> None:
    sent = block(dict.fromkeys(PLACES, "cpu"))
    ewc = State({"0": sent}, {"fisher": sent, "fisher-centre": sent})
    for method, received in ((Ewc(), ewc), (Olora(), State({"0": sent, "1": sent}))):
        loss = method.objective(Spread(), received, {}, SimpleNamespace())
        assert loss.device == torch.device("cuda:1")


def test_a_router_of_experts_meets_its_layers_inputs() -> None:
    given = shares(torch.ones(1, 4, 3, device="cuda:1"), torch.ones(8, 3, device="cuda:0"))
    assert given.shape == (1, 4, 8)
    assert given.device == torch.device("cuda:1")
