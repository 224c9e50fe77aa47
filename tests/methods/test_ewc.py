"""Elastic Weight Consolidation (Kirkpatrick et al. 2017): Fisher information, and the pull it makes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import cross_entropy

from fcit.benchmark import datasets
from fcit.methods.ewc import Ewc, pull
from fcit.rounds.client import Data, Training, take_turn
from fcit.seeds import torch_stream
from fcit.types import Job, Stage, State, Task, Turn, Update

TASK = Task("IconQA", ("IconQA",))
STAGE = Stage((TASK,))
BLANK = {"w": torch.zeros(2)}


@dataclass
class Sample:
    """Inputs [n, 3] and classes [n] of n samples."""

    x: torch.Tensor
    y: torch.Tensor

    def each(self):
        return (Sample(x[None], y[None]) for x, y in zip(self.x, self.y, strict=True))


class Toy:
    """A softmax regression [4, 3] in the place of a model."""

    def __init__(self, weight: torch.Tensor):
        self.weight = weight.clone().requires_grad_()

    def logits(self, batch: Sample):
        return batch.x @ self.weight.T, batch.y

    def live(self, _: str):
        return {"w": self.weight}

    def gradient(self, _: str, loss: torch.Tensor):
        return {"w": torch.autograd.grad(loss, self.weight)[0]}


def toy() -> tuple[Toy, list[Sample]]:
    noise = torch_stream(0, "toy")
    batches = [
        Sample(torch.randn(n, 3, generator=noise), torch.randint(4, (n,), generator=noise))
        for n in (5, 2)
    ]
    return Toy(torch.randn(4, 3, generator=noise)), batches


def wanted(model: Toy, batches: list[Sample]) -> torch.Tensor:
    """In closed form: the gradient of log p(y | x) is (onehot(y) - p) x^T, sample by sample."""
    x, y = torch.cat([b.x for b in batches]), torch.cat([b.y for b in batches])
    gap = torch.eye(4)[y] - (x @ model.weight.detach().T).softmax(-1)
    return (gap[:, :, None] * x[:, None, :]).square().mean(0)


def test_the_fisher_is_that_of_single_samples_per_answer_token() -> None:
    model, batches = toy()
    received = State({}, {"fisher-wanted": {"asked": torch.ones(1)}})
    extras, _ = Ewc().report(model, received, {}, batches)
    torch.testing.assert_close(extras["fisher-measured"]["w"], wanted(model, batches))
    extras, _ = Ewc(fisher_samples=5).report(model, received, {}, batches)
    torch.testing.assert_close(extras["fisher-measured"]["w"], wanted(model, batches[:1]))
    assert Ewc().report(model, State(), {}, batches) == ({}, {})
    pair = Sample(*(torch.cat([getattr(one, key) for one in batches]) for key in ("x", "y")))
    pair.each = lambda: iter([pair])  # type: ignore[method-assign] # one sample with an answer of 7 tokens
    extras, _ = Ewc().report(model, received, {}, [pair])
    (slope,) = torch.autograd.grad(
        cross_entropy(pair.x @ model.weight.T, pair.y, reduction="sum"), model.weight
    )
    torch.testing.assert_close(extras["fisher-measured"]["w"], slope.square() / 7)


def test_the_penalty_is_zero_at_theta_star_and_half_lambda_f_delta_squared_beside_it() -> None:
    model, batches = toy()
    method = Ewc(ewc_lambda=10.0)
    fisher = {"w": wanted(model, batches)}
    received = State({}, {"fisher": fisher, "fisher-centre": {"w": model.weight.detach().clone()}})
    assert method.penalty(model, received, {}, None).item() == 0.0
    with torch.no_grad():
        model.weight[1, 2] += 0.5
    loss = method.penalty(model, received, {}, None)
    torch.testing.assert_close(loss.detach(), 10.0 / 2 * fisher["w"][1, 2] * 0.25)
    loss.backward()
    want = torch.zeros(4, 3)
    want[1, 2] = 10.0 * fisher["w"][1, 2] * 0.5
    torch.testing.assert_close(model.weight.grad, want)
    assert method.penalty(model, State(), {}, None) == 0.0


def begun(method: Ewc) -> State:
    return method.begin(method.start(BLANK, {"p": torch.zeros(1)}), STAGE)


def ended(method: Ewc, state: State, theta: list[float], fisher: list[float]) -> State:
    update = Update(
        0,
        1,
        {"0": {"w": torch.tensor(theta)}},
        {"fisher-measured": {"w": torch.tensor(fisher)}},
        {},
    )
    return method.end(method.aggregate(state, [update]), STAGE)


def test_two_stages_quadratics_are_one_up_to_a_constant() -> None:
    method = Ewc()
    state = ended(method, begun(method), [1.0, 5.0], [3.0, 0.0])
    assert state.extras["fisher-centre"]["w"].tolist() == [1.0, 5.0]
    state = ended(method, state, [-1.0, 7.0], [1.0, 0.0])
    one = [{"w": torch.tensor([3.0, 0.0])}, {"w": torch.tensor([1.0, 5.0])}]
    two = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([-1.0, 7.0])}]
    gaps = []
    for point in ([0.0, 0.0], [2.0, 3.0], [-4.0, 1.0]):
        theta = {"w": torch.tensor(point)}
        both = pull(theta, *one) + pull(theta, *two)
        merged = pull(theta, state.extras["fisher"], state.extras["fisher-centre"])
        gaps.append(float(both - merged))
    assert gaps == pytest.approx([gaps[0]] * 3)
    assert state.extras["fisher-centre"]["w"].tolist() == [0.5, 7.0]
    assert "fisher-measured" not in state.extras


def test_clients_fishers_are_averaged_by_their_samples() -> None:
    method = Ewc()
    updates = [
        Update(
            client, samples, {"0": BLANK}, {"fisher-measured": {"w": torch.full((2,), value)}}, {}
        )
        for client, samples, value in ((0, 1, 4.0), (1, 3, 8.0))
    ]
    state = method.end(method.aggregate(begun(method), updates), STAGE)
    assert state.extras["fisher"]["w"].tolist() == [7.0, 7.0]


def test_only_the_last_rounds_clients_are_asked_to_measure() -> None:
    method = Ewc()
    state = begun(method)
    assert list(method.send(state, Turn(0, TASK, 0, 0)).extras) == ["projector"]
    last = method.send(state, Turn(0, TASK, 0, 1, True))
    assert set(last.extras) == {"projector", "fisher-wanted"}
    state = ended(method, state, [0.0, 0.0], [1.0, 1.0])
    sent = method.send(state, Turn(0, TASK, 1, 0))
    assert set(sent.extras) == {"projector", "fisher", "fisher-centre"}


def test_a_turn_on_the_model_measures_what_plain_autograd_does(lmm, suite) -> None:
    samples = datasets.read(suite, "IconQA", "train")[:4]
    data = Data(samples, [datasets.image_path(suite, one) for one in samples])
    method = Ewc(rank=2)
    blank = lmm.subspaces.blank(2, 0.05, torch_stream(0, "init"))
    state = method.begin(method.start(blank, lmm.base_projector), STAGE)
    turn = Turn(0, TASK, 0, 0, True)
    training = Training(lr=1e-2, batch_size=4)
    update, _ = take_turn(Job(turn, method.send(state, turn)), method, lmm, data, training, 0, {})
    got = update.extras["fisher-measured"]
    assert got.keys() == update.adapters["0"].keys()
    squares = [torch.zeros_like(value) for value in lmm.subspaces.trained()]
    tokens = len(lmm.logits(lmm.batch(data.samples, data.images))[1])
    assert tokens > len(samples)
    for sample, image in zip(data.samples, data.images, strict=True):
        loss = cross_entropy(*lmm.logits(lmm.batch([sample], [image])), reduction="sum")
        for total, slope in zip(
            squares, torch.autograd.grad(loss, lmm.subspaces.trained()), strict=True
        ):
            total += slope.square() / tokens
    assert max(float(value.max()) for value in squares) > 0
    for value, want in zip(got.values(), squares, strict=True):
        torch.testing.assert_close(value, want, rtol=2e-3, atol=1e-7)
    lmm.receive(State(), 2.0)
