"""FFA-LoRA: A is drawn at every client and never changes; B alone is trained, sent and averaged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fcit.aggregation.privacy import Privacy
from fcit.aggregation.privacy import aggregate as private_mean
from fcit.benchmark import datasets
from fcit.methods.ffa_lora import FfaLora
from fcit.rounds.client import Data, Training, take_turn
from fcit.seeds import noise_stream, torch_stream
from fcit.types import FcitError, Job, Stage, State, Task, Turn
from fcit.weights import DOWN, UP, ending, factors

TASK = Task("IconQA", ("IconQA",))
METHOD = FfaLora(rank=2)


@pytest.fixture(scope="module")
def state(lmm) -> State:
    blank = lmm.blank(2, 0.01, torch_stream(0, "init"))
    return METHOD.begin(METHOD.start(blank, lmm.base_projector, 7), Stage((TASK,)))


def test_a_never_travels_and_the_mean_is_exact(state: State, lmm, suite) -> None:
    samples = datasets.read(suite, "IconQA", "train")[:4]
    updates = []
    for client in (0, 1):
        own = samples[2 * client : 2 * client + 2]
        data = Data(own, [datasets.image_path(suite, one) for one in own])
        turn = Turn(client, TASK, 0, 0)
        job = Job(turn, METHOD.send(state, turn))
        assert all(key.endswith(UP) for key in job.received.adapters["0"])
        training = Training(lr=1e-2, batch_size=2)
        update, _ = take_turn(job, METHOD, lmm, data, training, 0, {})
        assert update.adapters["0"].keys() == job.received.adapters["0"].keys()
        updates.append(replace(update, samples=client + 1))
    after = METHOD.aggregate(state, updates).adapters["0"]
    for path, (a, b) in factors(after).items():
        assert a.equal(factors(state.adapters["0"])[path][0])
        first, second = (update.adapters["0"][f"base_model.model.{path}{UP}"] for update in updates)
        assert not first.equal(second)
        torch.testing.assert_close(b @ a, (first @ a) / 3 + (second @ a) * 2 / 3)
    lmm.receive(State(), 2.0)


def test_every_client_draws_the_servers_a_or_says_that_it_cannot(state: State, lmm) -> None:
    received = METHOD.send(state, Turn(0, TASK, 0, 0))
    whole = METHOD.complete(lmm, received, {}).adapters["0"]
    assert all(whole[key].equal(value) for key, value in state.adapters["0"].items())
    other = {"seed": torch.tensor(8), "check": received.extras["drawn"]["check"]}
    wrong = replace(received, extras=received.extras | {"drawn": other})
    with pytest.raises(FcitError, match="^method ffa_lora: [^\n]* same version of torch$"):
        METHOD.complete(lmm, wrong, {})


def test_a_private_mean_has_no_noise_on_a(state: State) -> None:
    sent = METHOD.expects(METHOD.send(state, Turn(0, TASK, 0, 0)))
    privacy, noise = Privacy(clip_norm=1.0, noise_multiplier=1.0), noise_stream(0, "noise")
    after = private_mean(state, state, [sent], [], [], privacy, noise).adapters["0"]
    old = state.adapters["0"]
    assert after.keys() == old.keys()
    assert all(after[key].equal(old[key]) for key in ending(old, DOWN))
    assert not any(after[key].equal(old[key]) for key in ending(old, UP))
