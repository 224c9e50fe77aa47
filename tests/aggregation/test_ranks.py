"""Ranks that differ by client: who trains what, and that whole models are averaged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fcit.aggregation.ranks import narrow, widen
from fcit.benchmark import datasets
from fcit.methods.base import Method
from fcit.methods.fedex_lora import FedexLora
from fcit.optimizers import Optimizer
from fcit.recipe.config import validate
from fcit.rounds.acceptance import Rejected, check_update
from fcit.rounds.client import Data, Training, take_turn
from fcit.rounds.federation import Federation
from fcit.seeds import torch_stream
from fcit.types import FcitError, Job, Stage, State, Task, Turn, Update
from fcit.weights import factors, redrawn

TASK = Task("IconQA", ("IconQA",))
RANKS = (1, 2, 4)


@pytest.fixture(scope="module")
def trained(lmm, suite) -> tuple[State, list[Job], list[Update], list[dict[str, Tensor]]]:
    """A turn of three clients of ranks 1, 2 and 4: the state before, their jobs, accepted updates, and
    what their models said afterwards."""
    method, samples = FedexLora(rank=4), datasets.read(suite, "IconQA", "train")[:6]
    noise = torch_stream(0, "init")
    state = method.begin(
        method.start(lmm.blank(4, 0.05, noise), lmm.base_projector), Stage((TASK,))
    )
    moved = {k: v + 0.05 if ".lora_B." in k else v for k, v in state.adapters["0"].items()}
    state = replace(state, adapters={"0": redrawn(moved, 0.05, noise)})
    jobs, updates, said = [], [], []
    for client, rank in enumerate(RANKS):
        turn, own = Turn(client, TASK, 0, 0), samples[2 * client : 2 * client + 2]
        data = Data(own, [datasets.image_path(suite, one) for one in own])
        sent = method.send(state, turn)
        jobs.append(Job(turn, narrow(sent, method.trains(sent), rank)))
        training = Training(lr=1e-2, batch_size=2, weight_decay=0.5)
        update, _ = take_turn(jobs[-1], method, lmm, data, training, 0, {})
        for a, b in factors(update.adapters["0"]).values():
            assert (a.shape[0], b.shape[1]) == (rank, rank)
        said.append(lmm.logits(lmm.batch(data.samples, data.images))[0].detach())
        asked = {client: jobs[-1]}
        updates.append(check_update(update, asked, {}, method, Optimizer(), "float32").update)
        whole = State({"0": updates[-1].adapters["0"]}, update.extras)
        lmm.receive(whole, method.scale)
        again, _ = lmm.logits(lmm.batch(data.samples, data.images))
        torch.testing.assert_close(again, said[-1], rtol=1e-4, atol=1e-4)
    lmm.receive(State(), 2.0)
    return state, jobs, updates, said


def test_a_client_trains_its_rows_and_the_others_stay(trained) -> None:
    state, _, updates, _ = trained
    for rank, update in zip(RANKS, updates, strict=True):
        for path, (a, b) in factors(update.adapters["0"]).items():
            old_a, old_b = factors(state.adapters["0"])[path]
            assert a.shape == old_a.shape
            assert a[rank:].equal(old_a[rank:])
            assert b[:, rank:].equal(old_b[:, rank:])
            assert not b[:, :rank].equal(old_b[:, :rank])


def test_products_of_all_ranks_are_averaged_exactly(trained) -> None:
    state, _, updates, _ = trained
    after = FedexLora(rank=4).aggregate(state, updates)
    for path in factors(state.adapters["0"]):
        pairs = [factors(update.adapters["0"])[path] for update in updates]
        served = [factors(block)[path] for block in after.adapters.values()]
        want = sum(b.double() @ a.double() for a, b in pairs) / 3
        got = sum(b.double() @ a.double() for a, b in served)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_a_client_is_held_to_its_rank(trained) -> None:
    _, jobs, updates, _ = trained
    with pytest.raises(Rejected, match="shape"):
        check_update(updates[0], {0: jobs[0]}, {}, Method(rank=4), Optimizer(), "float32")


def test_the_largest_rank_gets_and_sends_what_it_always_did(trained) -> None:
    state, jobs, updates, _ = trained
    assert "rest" not in jobs[2].received.extras
    assert jobs[2].received.adapters["0"] is state.adapters["0"]
    assert widen(updates[2], jobs[2].received) is updates[2]


def test_a_method_that_trains_several_adapters_is_refused(trained) -> None:
    with pytest.raises(FcitError, match="^federation.ranks: [^\n]* several adapters"):
        narrow(trained[0], ["0", "1"], 2)


def test_ranks_are_dealt_by_client_id() -> None:
    assert [Federation(ranks=(4, 8, 16)).rank_of(client) for client in range(4)] == [4, 8, 16, 4]
    assert Federation().rank_of(3) == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"federation": {"robust": "median"}}, "federation.ranks .* federation.robust"),
        ({"federation": {"optimizer": "scaffold"}}, "federation.ranks .* federation.optimizer"),
        ({"method": {"name": "finetune", "rank": 16}}, "federation.ranks: .* method.rank is 16"),
        ({"federation": {"ranks": [0, 8]}}, "federation.ranks, no. 1: "),
        *(
            (
                {"method": {"name": name}},
                f'federation.ranks.*is incompatible with method.name = "{name}"',
            )
            for name in ("ewc", "moelora", "l2p", "ffa_lora", "fedsa_lora", "multitask")
        ),
    ],
    ids=str,
)
def test_what_does_not_go_with_ranks_is_one_line(changes: dict, told: str) -> None:
    table = {"federation": {"ranks": [4, 8]}, "method": {"name": "finetune"}}
    for section, values in changes.items():
        table[section] = table[section] | values
    with pytest.raises(FcitError, match=told) as raised:
        validate(table)
    assert "\n" not in str(raised.value)
