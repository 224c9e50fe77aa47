"""A prompt's last MLP computes one position, and no answer changes by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from fcit.benchmark import datasets
from fcit.models import lmm as lmms
from fcit.models.last_layer import last_mlp, last_position_only
from fcit.models.lmm import LMM
from fcit.seeds import torch_stream
from fcit.types import Sample, State


@pytest.fixture
def questions(suite: Path) -> tuple[list[str], list[Path]]:
    samples = datasets.read(suite, "IconQA", "train")[:3]
    samples += datasets.read(suite, "Flickr30k", "train")[:3]
    paths = [datasets.image_path(suite, sample) for sample in samples]
    return [sample.prompt for sample in samples], paths


@pytest.fixture
def shapes(lmm: LMM) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of what the last layer's gate projection was given."""
    seen: list[tuple[int, ...]] = []
    gate = lmm.model.get_submodule(lmm.layers[-1].rpartition(".")[0]).gate_proj
    hook = gate.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    yield seen
    hook.remove()


def block(lmm: LMM, seed: int) -> dict[str, torch.Tensor]:
    noise = torch_stream(seed, "block")
    blank = lmm.subspaces.blank(4, 1.0, noise)
    return {key: 0.05 * torch.randn(value.shape, generator=noise) for key, value in blank.items()}


def test_answers_are_those_of_all_positions(lmm, questions, shapes, monkeypatch) -> None:
    lmm.receive(State({"0": block(lmm, 0), "1": block(lmm, 1)}), 2.0)
    lmm.gate = torch.rand(6, 2, generator=torch_stream(0, "gate"))  # one for each question
    ours = lmm.generate(*questions, 6)
    seen = shapes.copy()
    assert len(seen) > 1 and set(seen) == {(6, 1, 192)}
    shapes.clear()
    monkeypatch.setattr(lmms, "last_position_only", lambda _: nullcontext())
    assert lmm.generate(*questions, 6) == ours
    assert shapes[0][1] > 50 and shapes[1:] == seen[1:]
    lmm.gate = None


def test_a_gate_may_look_at_all_positions_of_a_layers_input(lmm, questions, shapes) -> None:
    lmm.receive(State({"0": block(lmm, 0), "1": block(lmm, 1)}), 2.0)
    lmm.gate = lambda layer, x: torch.stack([x.mean((1, 2)) > 0, x.mean((1, 2)) <= 0], 1).to(x)
    lmm.generate(*questions, 2)
    assert shapes[0][1] > 50
    lmm.gate = None


def test_a_loss_and_what_follows_an_error_read_all_positions(lmm, questions, shapes) -> None:
    def stopped() -> bool:
        raise InterruptedError

    lmm.receive(State(), 2.0)
    with pytest.raises(InterruptedError):
        lmm.complete(*questions, [6] * 6, stopped)
    assert shapes == [(6, 1, 192)]
    shapes.clear()
    sample = Sample("0", "IconQA", "0.png", questions[0][0], ("yes",))
    batch = lmm.batch([sample], questions[1][:1])
    lmm.loss(batch)
    assert shapes == [(*batch.ids.shape, 192)]


class Mlp(nn.Module):
    """Two projections, and what else a family has beside them."""

    def __init__(self, **more: nn.Module):
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)
        for name, module in more.items():
            self.add_module(name, module)


class Layer(nn.Module):
    def __init__(self, **parts: nn.Module):
        super().__init__()
        for name, module in parts.items():
            self.add_module(name, module)


def test_an_mlp_with_other_weights_or_no_module_of_its_own_is_left_alone() -> None:
    def found(*layers: nn.Module) -> nn.Module | None:
        model = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        adapted = [
            path
            for path, part in model.named_modules()
            if isinstance(part, nn.Linear) and part.in_features != part.out_features > 2
        ]
        return last_mlp(model, adapted)

    plain, last = Layer(mlp=Mlp()), Layer(mlp=Mlp(act=nn.ReLU()), attention=nn.Linear(4, 4))
    assert found(plain, last) is last.mlp
    assert found(last, Layer(experts=nn.Linear(4, 4))) is None  # others follow
    assert found(plain, Layer(mlp=Mlp(router=nn.Linear(4, 2)))) is None
    assert found(plain, Layer(up=nn.Linear(4, 8), down=nn.Linear(8, 4))) is None
    assert found(plain, Layer(mlp=Layer(experts=nn.ModuleList([Mlp(), Mlp()])))) is None
    with last_position_only(None):
        pass
