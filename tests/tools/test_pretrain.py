"""Pretraining: batches as promised, the same result after an interruption, errors that say what."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from fcit.types import FcitError
from tools.mini_models import architecture as mini
from tools.mini_models import chunks, generic, pretrain
from tools.mini_models.loop import Plan, share, train


def test_a_chunk_holds_whole_conversations_that_end_in_an_answer():
    drawn = chunks.lmm_chunk(0, "test", 0, 16)
    words = chunks.tokenizer(0)
    for row in range(16):
        part, ids = drawn.fields["part"][row], drawn.fields["ids"][row]
        weight = drawn.fields["weight"][row]
        assert part.max() == len(drawn.skills[row]) >= 1
        for number in range(1, part.max() + 1):
            one = ids[part == number].tolist()
            assert one[-1] == mini.EOS
            assert mini.ASSISTANT in one
            assert weight[part == number][-1] > 0
            assert weight[part == number][0] == 0
            assert words.decode(one)
    again = chunks.lmm_chunk(0, "test", 0, 16)
    assert all((drawn.fields[name] == again.fields[name]).all() for name in drawn.fields)


def test_clip_chunks_hold_ended_texts_and_aims_that_follow_shared_words():
    drawn = chunks.clip_chunk(0, "test", 0, 16)
    for name in ("captions", "texts"):
        assert ((drawn.fields[name] == mini.EOS).sum(-1) == 1).all()
    assert drawn.fields["aims"].shape == (16, chunks.TEXTS, mini.CLIP_WIDTH)
    words, aims = chunks.tokenizer(0), chunks.directions(0)
    near, same, far = (
        aims[words.encode(text).ids].sum(axis=0)
        for text in (
            "Wolf river guitar. One word.",
            "Find a wolf near the river guitar.",
            "Sugar kite. One word.",
        )
    )
    cosine = [one @ near / np.linalg.norm(one) / np.linalg.norm(near) for one in (same, far)]
    assert cosine[0] > cosine[1] + 0.1


def test_image_tokens_are_read_as_the_words_for_what_they_show():
    words = chunks.tokenizer(0)
    kinds, colours = chunks.names(words)
    assert words.decode([kinds[generic.KINDS.index("star")]]) == " star"
    assert words.decode([kinds[generic.KINDS.index("K")]]) == "K"
    assert words.decode([colours[generic.TONES.index("red")]]) == " red"
    assert kinds[0] == colours[0] == -1
    assert sum(one < 0 for one in (*kinds, *colours)) <= 3


def _toy(state: Path | None, stop: int | None = None) -> torch.nn.Linear:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    inputs = torch.randn(20, 4, 3, generator=torch.Generator().manual_seed(1))

    def loss(step: int) -> torch.Tensor:
        if step == stop:
            raise KeyboardInterrupt
        return (model(inputs[step]).float() - 1).pow(2).mean()

    train({"toy": model}, loss, Plan(20, rate=0.1, warm=2, minutes=0.0), state)
    return model


def test_an_interrupted_training_ends_as_an_undisturbed_one(tmp_path):
    whole = _toy(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        _toy(tmp_path / "cut", stop=11)
    assert (tmp_path / "cut" / "at-11.safetensors").is_file()
    resumed = _toy(tmp_path / "cut")
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)


def test_the_learning_rate_warms_up_and_falls_to_zero():
    plan = Plan(100, rate=1.0, warm=10)
    shares = [share(step, plan) for step in range(100)]
    assert shares[:2] == [0.1, 0.2]
    assert max(shares) == 1.0
    assert shares[-1] < 0.01


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(pretrain, "BATCH", 8)
    monkeypatch.setattr(pretrain, "SIGHT_BATCH", 8)
    monkeypatch.setattr(chunks, "CHUNK", 8)
    monkeypatch.setattr(mini, "DEPTH", 1)


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_pretrain_writes_two_loadable_folders_and_clears_its_state(
    processes, small, monkeypatch, tmp_path
):
    if not processes:  # a thread draws the batches: it need not import, nor learn the words again
        monkeypatch.setattr(chunks, "ProcessPoolExecutor", lambda n, **_: ThreadPoolExecutor(n))
    from transformers import AutoModelForImageTextToText, AutoProcessor, CLIPModel

    heard: list[tuple[str, int, int]] = []

    def hear(model: str, step: int, steps: int, _loss: float) -> None:
        heard.append((model, step, steps))

    scores = pretrain.pretrain(tmp_path, 0, 1, 1, 1, progress=hear, test=8)
    names = ("mini-lmm's sight", "mini-lmm", "mini-clip")
    assert heard == [(name, 1, 1) for name in names]
    assert 0 <= scores["mini-lmm"]["all"] <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mini-clip", "mini-lmm"]
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "mini-lmm")
    assert model.dtype == torch.float16
    assert AutoProcessor.from_pretrained(tmp_path / "mini-lmm").image_token == "<image>"
    assert CLIPModel.from_pretrained(tmp_path / "mini-clip").config.projection_dim == 128
    with pytest.raises(FcitError, match="mini-lmm: exists already"):  # hours of work
        pretrain.pretrain(tmp_path, 0, 1, 1, 1)


def test_a_state_of_another_plan_is_refused_by_name(tmp_path):
    pretrain._begin(tmp_path / ".pretrain", {"seed": 0})
    with pytest.raises(FcitError, match=r"\.pretrain"):
        pretrain.pretrain(tmp_path, seed=1)
    with pytest.raises(FcitError, match="at least 1"):
        pretrain.pretrain(tmp_path, lmm_steps=0)
