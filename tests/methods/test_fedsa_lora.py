"""FedSA-LoRA: A is averaged, every client keeps its own B, and the last round's B answer."""

from __future__ import annotations

import pytest
import torch

from fcit.benchmark import datasets
from fcit.methods.fedsa_lora import FedsaLora
from fcit.recipe.config import validate
from fcit.rounds.client import Data, Training, take_turn
from fcit.seeds import torch_stream
from fcit.types import FcitError, Job, Stage, State, Task, Turn, Update, Weights
from fcit.weights import DOWN, UP, ending, mean

TASK = Task("IconQA", ("IconQA",))
METHOD = FedsaLora(rank=2)


def test_clients_keep_their_own_b_which_the_server_averages_after_a_stage(lmm, suite) -> None:
    samples = datasets.read(suite, "IconQA", "train")[:4]
    memories: dict[int, Weights] = {0: {}, 1: {}}
    blank = lmm.blank(2, 0.01, torch_stream(0, "init"))
    state = METHOD.begin(METHOD.start(blank, lmm.base_projector), Stage((TASK,)))

    def take_round(state: State, number: int, last: bool, clients=(0, 1)) -> list[Update]:
        updates = []
        for client in clients:
            turn = Turn(client, TASK, 0, number, last)
            own = samples[2 * client : 2 * client + 2]
            data = Data(own, [datasets.image_path(suite, one) for one in own])
            job = Job(turn, METHOD.send(state, turn))
            training = Training(lr=1e-2, batch_size=2, dropout=0)
            update, memories[client] = take_turn(
                job, METHOD, lmm, data, training, 0, memories[client]
            )
            assert update.adapters["0"].keys() == job.received.adapters["0"].keys()
            updates.append(update)
        return updates

    first = take_round(state, 0, last=False, clients=(0,))
    assert all(key.endswith(DOWN) for key in first[0].adapters["0"])
    state = METHOD.aggregate(state, first)
    assert all(not value.any() for value in ending(state.adapters["0"], UP).values())
    trained_once = dict(memories[0])
    assert all(value.any() for value in trained_once.values())
    whole = METHOD.complete(lmm, METHOD.send(state, Turn(0, TASK, 0, 1)), trained_once)
    assert all(whole.adapters["0"][key].equal(value) for key, value in trained_once.items())
    newcomer = METHOD.complete(lmm, METHOD.send(state, Turn(1, TASK, 0, 1)), {})
    assert not any(value.any() for value in ending(newcomer.adapters["0"], UP).values())
    last = take_round(state, 1, last=True)
    state = METHOD.aggregate(state, last)
    for key, value in mean(list(memories.values()), [2, 2]).items():
        torch.testing.assert_close(state.adapters["0"][key], value)
        assert not memories[0][key].equal(trained_once[key])
        assert last[0].adapters["0"][key].equal(memories[0][key])
    lmm.receive(State(), 2.0)


@pytest.mark.parametrize(
    ("key", "value"), [("average", "product"), ("optimizer", "scaffold"), ("optimizer", "fedadam")]
)
def test_what_needs_one_b_is_refused(key: str, value: str) -> None:
    told = (
        f'federation.{key} = "{value}" is incompatible with method.name = "fedsa_lora": each client'
    )
    with pytest.raises(FcitError, match=told):
        validate({"method": {"name": "fedsa_lora"}, "federation": {key: value}})
