"""Learning without Forgetting (Li & Hoiem 2016): the old model's answers as a second target."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from fcit.benchmark import datasets
from fcit.methods.lwf import Lwf, softened_kl
from fcit.seeds import torch_stream
from fcit.types import Stage, State, Task, Turn

TASK = Task("IconQA", ("IconQA",))
STAGE = Stage((TASK,))


def logits(seed: int) -> torch.Tensor:
    return torch.randn(5, 7, generator=torch_stream(seed, "logits"), dtype=torch.float64)


def test_the_kl_is_zero_when_student_and_teacher_agree_and_positive_else() -> None:
    assert softened_kl(logits(0), logits(0), 2.0) == pytest.approx(0, abs=1e-12)
    assert softened_kl(logits(0), logits(0) + 3.0, 2.0) == pytest.approx(0, abs=1e-12)
    assert float(softened_kl(logits(0), logits(1), 2.0)) > 0


def test_the_kl_is_that_of_the_definition_with_its_factor() -> None:
    p, q = (logits(0) / 2.0).softmax(-1), (logits(1) / 2.0).softmax(-1)
    want = 4.0 * (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(softened_kl(logits(0), logits(1), 2.0), want)


def test_the_factor_keeps_the_gradient_when_the_softmax_is_softened() -> None:
    """For a large T, T^2 KL tends to the squared distance of centred logits over 2 n: its gradient has
    a limit instead of vanishing as 1 / T^2 (Hinton et al. 2015, equation 4)."""
    old = logits(0)
    slopes = []
    for softening in (50.0, 100.0):
        new = logits(1).requires_grad_()
        softened_kl(old, new, softening).backward()
        slopes.append(new.grad)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0.1, atol=1e-3)
    gap = logits(1) - old
    want = (gap - gap.mean(-1, keepdim=True)) / gap.shape[1] / gap.shape[0]
    torch.testing.assert_close(slopes[1], want, rtol=0.1, atol=1e-3)


def test_the_teacher_is_the_model_at_the_stages_beginning() -> None:
    method = Lwf()
    state = method.begin(method.start({"w": torch.ones(2)}, {"p": torch.ones(1)}), STAGE)
    turn = Turn(0, TASK, 0, 0)
    assert list(method.send(state, turn).adapters) == ["0"]
    trained = State(
        {"0": {"w": torch.zeros(2)}}, state.extras | {"projector": {"p": -torch.ones(1)}}
    )
    sent = method.send(method.begin(trained, STAGE), turn)
    assert method.trains(sent) == ["0"]
    assert sent.adapters["teacher"]["w"].tolist() == [0, 0]
    assert sent.extras["teacher-projector"]["p"].tolist() == [-1]


def test_on_a_model_the_loss_adds_the_kl_of_old_adapter_and_old_projector(lmm, suite) -> None:
    samples = datasets.read(suite, "IconQA", "train")[:4]
    batch = lmm.batch(samples, [datasets.image_path(suite, one) for one in samples])
    method = Lwf(rank=4)
    noise = torch_stream(0, "blocks")
    blank = lmm.subspaces.blank(4, 0.05, noise)
    old = {key: torch.randn(v.shape, generator=noise) * 0.05 for key, v in blank.items()}
    new = {key: torch.randn(v.shape, generator=noise) * 0.05 for key, v in blank.items()}
    moved = {key: value * 1.1 for key, value in lmm.base_projector.items()}

    def said(adapter, projector) -> torch.Tensor:
        lmm.receive(State({"0": adapter}, {"projector": projector}), method.scale)
        return lmm.logits(batch)[0].detach()

    was, now = said(old, lmm.base_projector), said(new, moved)
    state = method.begin(State({"0": old}, {"projector": lmm.base_projector}), STAGE)
    for adapter, projector, want in (
        (old, lmm.base_projector, 0.0),
        (new, moved, float(softened_kl(was, now, 2.0))),
    ):
        state = State({"0": adapter}, state.extras | {"projector": projector})
        received = method.send(state, Turn(0, TASK, 1, 0))
        lmm.receive(received, method.scale, method.trains(received), True)
        loss = method.objective(lmm, received, {}, batch)  # leaves the student's gate in place
        plain = cross_entropy(*lmm.logits(batch))
        assert (loss - plain).item() == pytest.approx(want, rel=1e-3, abs=1e-5)
    loss.backward()
    assert all(value.grad is not None for value in lmm.projector_parameters())
    frozen = lmm.live("teacher")
    assert not any(value.requires_grad for value in frozen.values())
    lmm.receive(State(), 2.0)
