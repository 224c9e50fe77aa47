"""Optimizers beside methods on the mini model: equal bits for any number of workers, and resumed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import fcit
from fcit.benchmark import datasets
from fcit.files import read_lines
from fcit.methods.base import Method
from fcit.optimizers.base import Optimizer
from fcit.optimizers.fedprox import Fedprox
from fcit.optimizers.scaffold import Scaffold
from fcit.recipe.config import validate
from fcit.rounds.client import Data, Training, take_turn
from fcit.rounds.runfolder import RunFolder
from fcit.types import Job, Stage, State, Task, Turn, Update, Weights
from fcit.weights import flatten, nbytes, state_bytes, to_bytes

TASK = Task("IconQA", ("IconQA",))


@pytest.fixture(scope="module")
def client(lmm, suite: Path):
    """A client of twelve samples, and what the server sends it first."""
    samples = datasets.read(suite, "IconQA", "train")[:12]
    data = Data(samples, [datasets.image_path(suite, one) for one in samples])
    method = Method()
    blank = lmm.subspaces.blank(4, 0.05, torch.Generator().manual_seed(0))
    state = method.begin(method.start(blank, lmm.base_projector), Stage((TASK,)))
    sent = method.send(state, Turn(0, TASK, 0, 0))

    def turn(
        optimizer: Optimizer, memory: Weights | None = None, received: State = sent
    ) -> tuple[Update, Weights]:
        job, training = Job(Turn(0, TASK, 0, 0), received), Training(lr=1e-2, batch_size=6)
        return take_turn(job, method, lmm, data, training, 0, memory or {}, optimizer)

    yield turn
    lmm.receive(State(), 2.0)


def sent(update: Update) -> bytes:
    return to_bytes(flatten(State(update.adapters, update.extras)))


def test_fedprox_with_mu_0_and_scaffolds_first_turn_are_fedavg_to_the_bit(client) -> None:
    plain, kept = client(Optimizer(), {"mine": torch.ones(1)})
    assert list(kept) == ["mine"]
    assert not plain.optimizer
    assert sent(client(Fedprox(mu=0.0))[0]) == sent(plain)
    assert sent(client(Fedprox(mu=1.0))[0]) != sent(plain)
    first, kept = client(Scaffold())
    assert sent(first) == sent(plain)
    assert set(first.optimizer) == {"adapters.0", "projector"}
    assert state_bytes(first.optimizer) == state_bytes(first.adapters) + state_bytes(first.extras)
    assert nbytes(kept) == state_bytes(first.optimizer)
    received = State(first.adapters, first.extras, first.optimizer)
    again, _ = client(Scaffold(), kept | {"mine": torch.ones(1)}, received)
    assert sent(again) == sent(
        client(Optimizer(), None, received)[0]
    )  # c = c_i: nothing to correct


COMBINED = {
    "disco x scaffold": ("disco", {"optimizer": "scaffold"}),
    "finetune x fedadam x ranks": (
        "finetune",
        {
            "optimizer": "fedadam",
            "average": "product",
            "optimizer_options": {"lr": 0.002},
            "ranks": [3, 8],
        },
    ),
}


@pytest.mark.parametrize("name", COMBINED)
def test_any_number_of_workers_and_a_resume_give_the_same_bits(
    name: str, table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, federation = COMBINED[name]
    table = copy.deepcopy(table) | {"method": {"name": method}}
    table["federation"] |= federation
    table["data"] |= {"train": 16}
    table["evaluation"]["limit"] = 2
    one = fcit.run(validate(table), tmp_path / "one").folder

    table["federation"]["workers"] = 2
    commit, commits = RunFolder.commit, []

    def stopped(folder: RunFolder, *rest) -> None:
        commit(folder, *rest)
        commits.append(rest)
        if len(commits) == 4:  # in the second stage: two rounds, the first stage's end, a round
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "commit", stopped)
        fcit.run(validate(table), tmp_path / "two")
    two = fcit.run(validate(table), tmp_path / "two", resume=True).folder
    assert files(two) == files(one)

    state, memory = RunFolder(one).state()
    rounds = read_lines(one / "log.jsonl")
    weights = state_bytes({"0": state.adapters["0"]}) + state_bytes(
        {"projector": state.extras["projector"]}
    )
    if method == "disco":
        kept = {key.rpartition(".")[0] for key in state.optimizer}
        assert {"variate.adapters", "variate"} <= kept  # of a subspace, and of the projector
        assert any(memory.values())
        assert rounds[-1]["bytes_up"][0] in (
            2 * weights,
            2 * weights + rounds[-1]["bytes_token"][0],
        )
        assert rounds[-1]["bytes_down"][0] == 2 * weights
    else:
        assert state.optimizer.keys() == {"adapters.0", "extras.projector"}
        assert not any(memory.values())
        assert rounds[-1]["bytes_down"] == [weights] * 2
        for client, size in zip(rounds[-1]["clients"], rounds[-1]["bytes_up"], strict=True):
            assert size == weights if client % 2 else size < weights


def files(folder: Path) -> dict[str, bytes]:
    kept = [folder / "matrix.json", *sorted((folder / "state").iterdir())]
    return {file.name: file.read_bytes() for file in kept}


def test_many_experts_keep_their_order_on_every_wire(table: dict, tmp_path: Path) -> None:
    """A wire sorts names of adapters: "10" comes before "2" there."""
    table = copy.deepcopy(table) | {"method": {"name": "moelora", "experts": 11, "rank": 1}}
    table["federation"] |= {"optimizer": "scaffold", "wire": "bfloat16", "rounds": 1}
    table["data"] |= {"train": 16}
    table["evaluation"]["limit"] = 2
    run = fcit.run(validate(table), tmp_path / "run")
    rows = read_lines(run.folder / "log.jsonl")
    assert len(rows) == 2 and all(
        len(row["clients"]) == 2 and not row.get("faults") for row in rows
    )


def test_centralised_training_has_no_federated_optimizer(table: dict) -> None:
    from fcit.worker.experiment import Experiment

    table = copy.deepcopy(table)
    table["federation"] |= {"optimizer": "fedadam"}
    for method, kind in (("multitask", "Optimizer"), ("individual", "Fedadam")):
        found = Experiment(validate(table | {"method": {"name": method}})).optimizer
        assert type(found).__name__ == kind
