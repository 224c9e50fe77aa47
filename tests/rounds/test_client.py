"""The local loop's parts: batches of alike lengths, and the learning rate."""

from __future__ import annotations

import itertools

import pytest

from fcit.methods import find
from fcit.optimizers import Optimizer
from fcit.optimizers.base import Local
from fcit.recipe.config import validate
from fcit.rounds.client import (
    Data,
    Training,
    batches,
    grouped,
    rough_lengths,
    schedule,
    steps,
    take_turn,
)
from fcit.seeds import derive, numpy_stream, torch_stream
from fcit.types import Job, Sample, Stage, State, Update
from fcit.worker.experiment import Experiment


def test_every_sample_is_in_exactly_one_batch_of_alike_lengths() -> None:
    lengths = [(i * 37) % 101 for i in range(103)]
    batches = list(grouped(lengths, 8, numpy_stream(0, "x")))
    assert sorted(i for batch in batches for i in batch) == list(range(103))
    assert max(len(batch) for batch in batches) == 8
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches]
    assert max(spread) <= 12  # 101 for random batches
    assert batches == list(grouped(lengths, 8, numpy_stream(0, "x")))
    assert batches != list(grouped(lengths, 8, numpy_stream(1, "x")))


def test_half_a_pass_has_half_of_the_samples() -> None:
    lengths = [0] * 10
    plan = batches(lengths, 2, 2.5, numpy_stream(0, "x"))
    assert plan[:10] == batches(lengths, 2, 2, numpy_stream(0, "x"))
    assert [len(batch) for batch in sorted(plan[10:], key=len)] == [1, 2, 2]
    assert len({index for batch in plan[10:] for index in batch}) == 5
    assert len(plan) == steps(10, 2, 2.5) == 13
    assert batches(lengths, 2, 1, numpy_stream(0, "x")) == list(
        grouped(lengths, 2, numpy_stream(0, "x"))
    )


@pytest.mark.parametrize(
    ("samples", "epochs", "trained"), [(45, 2.2, 99), (44, 1 / 8, 6), (3, 1 / 8, 1), (0, 1 / 8, 0)]
)
def test_a_fraction_of_a_pass_is_one_of_the_samples_and_never_nothing(
    samples: int, epochs: float, trained: int
) -> None:
    plan = batches(list(range(samples)), 1, epochs, numpy_stream(0, "x"))
    assert len(plan) == steps(samples, 1, epochs) == trained


def test_a_fraction_of_a_pass_takes_short_samples_as_often_as_long_ones() -> None:
    parts = [batches(list(range(8)), 8, 1 / 4, numpy_stream(seed, "x")) for seed in range(40)]
    assert all(len(plan) == 1 and len(plan[0]) == 2 for plan in parts)
    assert {index for plan in parts for index in plan[0]} == set(range(8))


def test_images_of_many_tokens_are_grouped_apart() -> None:
    sample = Sample("0", "d", "i.png", "what?", ("red",))
    tokens = [10, 1000] * 8
    plan = batches(rough_lengths([sample] * 16, tokens), 4, 1, numpy_stream(0, "x"))
    assert all(len({tokens[i] for i in batch}) == 1 for batch in plan)
    assert rough_lengths([sample], [0]) == [0]


def test_the_rate_warms_up_then_falls_to_zero() -> None:
    rates = [schedule(step, 100, 0.03) for step in range(100)]
    assert rates[:3] == [1 / 3, 2 / 3, 1.0]
    assert rates[3] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[3:]))
    assert 0 < rates[-1] < 0.001
    assert schedule(0, 1, 0.03) == 1.0


def test_streams_differ_by_purpose_and_place_and_never_move() -> None:
    seeds = {derive(s, p, *place) for s in (0, 1) for p in "ab" for place in ((), (1,), (1, 2))}
    assert len(seeds) == 12
    assert derive(0, "batches", 1, 2, 3) == 0x6486B1BD6D83EA7D  # a moved stream moves every number


@pytest.fixture
def turn(lmm, table: dict):
    """One turn of a method: its update after training, whatever the memory it may take."""

    def take(name: str, optimizer: Optimizer | None = None, **training) -> Update:
        method = find(name)()
        experiment = Experiment(validate(table))
        data = experiment.data(experiment.plan[0][0][0])
        data = Data(data.samples[:6], data.images[:6])
        blank = lmm.subspaces.blank(method.rank, 0.05, torch_stream(0, "x"))
        state = method.start(blank, lmm.base_projector)
        state = method.begin(method.begin(state, experiment.setting.stages[0]), Stage(()))
        first = experiment.plan[0][0][0]
        job = Job(first, method.send(state, first))
        settings = Training(**{"lr": 1e-3, "batch_size": 6, "max_grad_norm": 1e9} | training)
        return take_turn(job, method, lmm, data, settings, 0, {}, optimizer)[0]

    return take


def differences(a: Update, b: Update) -> float:
    (one,), (other,) = a.adapters.values(), b.adapters.values()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


@pytest.mark.parametrize("method", ["finetune", "lwf"])
def test_a_step_in_parts_is_the_whole_step_up_to_float_error(turn, method: str) -> None:
    whole = turn(method, dropout=0.0, weight_decay=0.0)
    parts = turn(method, dropout=0.0, weight_decay=0.0, micro_batch=4)
    assert parts.metrics["steps"] == whole.metrics["steps"] == 1
    assert parts.metrics["loss"] == pytest.approx(whole.metrics["loss"], rel=1e-5)
    everything = turn(method, dropout=0.0, micro_batch=6)
    assert differences(everything, whole) == 0


def test_the_gradient_of_a_step_in_parts_is_that_of_the_whole_batch(
    lmm, table: dict, monkeypatch: pytest.MonkeyPatch, turn
) -> None:
    import torch

    seen: list[list[torch.Tensor]] = []
    clip = torch.nn.utils.clip_grad_norm_

    def spy(parameters, norm):
        seen.append([one.grad.clone() for one in parameters])
        return clip(parameters, norm)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    turn("finetune", dropout=0.0)
    turn("finetune", dropout=0.0, micro_batch=1)
    turn("finetune", dropout=0.0, micro_batch=1, checkpointing=True)
    turn("finetune", dropout=0.3)
    passes: list[None] = []
    layer = lmm.model.get_decoder().layers[0].mlp
    hook = layer.register_forward_pre_hook(lambda *_: passes.append(None))
    turn("finetune", dropout=0.3, checkpointing=True)
    assert len(passes) == 2  # one to answer, one for the gradient
    turn("finetune", dropout=0.3)
    assert len(passes) == 3, "the next turn without it computes each layer once"
    hook.remove()
    whole, parts, lean, dropped, again, _ = seen
    for a, b in [(whole, parts), (whole, lean), (dropped, again)]:
        for one, other in zip(a, b, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(a, b, rtol=1e-2) for a, b in zip(whole, dropped, strict=True))
    assert not any(layer.training for layer in lmm.model.get_decoder().layers)


def test_a_turn_is_adamw_with_these_rates_clipping_and_decay(lmm, table: dict) -> None:
    """Three steps, written out: warm-up and cosine, a rate for the projector, one norm for both."""
    import torch

    method, experiment = find("finetune")(), Experiment(validate(table))
    first = experiment.plan[0][0][0]
    data = experiment.data_of(experiment.samples("IconQA", "train")[:6])
    training = Training(
        lr=1e-2,
        projector_lr=3e-3,
        batch_size=2,
        warmup=0.5,
        weight_decay=0.1,
        dropout=0.0,
        max_grad_norm=0.02,
    )
    blank = lmm.subspaces.blank(method.rank, 0.05, torch_stream(0, "x"))
    state = method.begin(method.start(blank, lmm.base_projector), Stage(()))
    job = Job(first, method.send(state, first))
    update, _ = take_turn(job, method, lmm, data, training, 0, {})

    lmm.receive(job.received, method.scale, method.trains(job.received), True, True)
    lora, projector = lmm.adapter_parameters(), lmm.projector_parameters()
    order = numpy_stream(0, "batches", first.stage, first.round, first.client)
    lengths = rough_lengths(data.samples, lmm.images.token_counts(data.images))
    memory = [(torch.zeros_like(p), torch.zeros_like(p)) for p in (*lora, *projector)]
    norms = []
    for step, indices in enumerate(batches(lengths, 2, 1, order), 1):
        factor = (0.5, 1.0, 1.0)[step - 1]  # two steps of warm-up, then the cosine's beginning
        loss = lmm.loss(
            lmm.batch(*([rows[i] for i in indices] for rows in (data.samples, data.images)))
        )
        gradients = torch.autograd.grad(loss, [*lora, *projector])
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))
        norms.append(float(norm))
        with torch.no_grad():
            for at, (p, g) in enumerate(zip([*lora, *projector], gradients, strict=True)):
                rate = factor * (1e-2 if at < len(lora) else 3e-3)
                g = g * min(1.0, 0.02 / float(norm))
                m, v = memory[at]
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                p.mul_(1 - rate * 0.1)
                p.sub_(rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8))
    assert len(norms) == update.metrics["steps"] == 3
    assert max(norms) > 0.04  # so that clipping mattered
    for key, value in lmm.adapter("0").items():
        torch.testing.assert_close(update.adapters["0"][key], value, atol=1e-4, rtol=1e-3)
    for key, value in lmm.shared_projector().items():
        torch.testing.assert_close(update.extras["projector"][key], value, atol=1e-4, rtol=1e-3)
    lmm.receive(State(), 2.0)


def test_gradients_are_corrected_before_they_are_clipped(lmm, table: dict, turn) -> None:
    """A correction that makes gradients a million times larger is clipped like any other."""
    import torch

    seen = []

    class Huge(Local):
        def __init__(self, named):
            self.named = named

        def correct(self) -> None:
            for parameters in self.named.values():
                for parameter in parameters:
                    parameter.grad.mul_(1e6)

    class Growing(Optimizer):
        def local(self, turn, named, received, memory):
            return Huge(named)

    clip = torch.nn.utils.clip_grad_norm_

    def noted(parameters, most):
        norm = clip(parameters, most)
        seen.append((float(norm), float(clip(parameters, 1e12))))
        return norm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", noted)
        turn("finetune", optimizer=Growing(), max_grad_norm=1.0)
    ((before, after),) = seen
    assert before > 1e4 and after <= 1.001
