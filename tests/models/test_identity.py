"""The frozen encoder: features that know no batch, and a mini CLIP that tells the datasets apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from fcit.benchmark.datasets import DATASETS, image_path, read
from fcit.benchmark.settings import TASK_ORDER
from fcit.models import CHECKPOINTS
from fcit.models.identity import Encoder
from fcit.types import FcitError
from fcit.weights import cosine

PROMPTS = ["What is it?", "How many red stars are there?\nAnswer with a number.", "a " * 300]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.set_num_threads(1)
    return Encoder(CHECKPOINTS / "mini-clip")


@pytest.fixture(scope="module")
def features(encoder: Encoder, suite: Path) -> dict[str, torch.Tensor]:
    """Text features of every dataset's 40 training and 12 test prompts, training first."""
    return {
        name: encoder.text(
            [one.prompt for part in ("train", "test") for one in read(suite, name, part)]
        )
        for name in DATASETS
    }


@pytest.fixture(scope="module")
def images(suite: Path) -> list[Path]:
    return [image_path(suite, one) for one in read(suite, "IconQA", "train")[:3]]


def fresh(encoder: Encoder) -> Encoder:
    """The same encoder with nothing remembered."""
    encoder.cache.clear()
    return encoder


def test_a_text_feature_does_not_depend_on_its_batch(encoder: Encoder) -> None:
    together = fresh(encoder).text(PROMPTS)
    assert together.shape[0] == 3
    for prompt, row in zip(PROMPTS, together, strict=True):
        assert torch.equal(fresh(encoder).text([prompt])[0], row)
    backwards = fresh(encoder).text([*PROMPTS[::-1], PROMPTS[0]])
    assert torch.equal(backwards[:3].flip(0), together)
    assert torch.equal(backwards[3], together[0])


def test_an_image_that_was_written_anew_is_read_anew(encoder: Encoder, tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    seen = []
    for colour in ("red", "blue"):
        Image.new("RGB", (48, 48), colour).save(file)
        os.utime(file, ns=(0, len(colour)))
        seen.append(encoder.image([file])[0])
    assert not torch.equal(*seen)


def test_what_is_remembered_is_bounded(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcit.models.identity.MOST_KEYS", 5)
    for number in range(20):
        encoder.text([f"How many of {number}?"])
    assert len(fresh(encoder).text(["a", "b"])) == 2
    assert len(encoder.cache) <= 6


def test_a_control_token_in_a_text_does_not_end_it(encoder: Encoder) -> None:
    end = encoder.features.tokenizer.eos_token
    first, second = encoder.text([f"What {end} a star", f"What {end} a circle"])
    assert not torch.equal(first, second)


def test_a_text_longer_than_the_encoder_is_cut(encoder: Encoder) -> None:
    long, longer = encoder.text(["star " * 500, "star " * 900])
    assert torch.equal(long, longer)
    assert long.isfinite().all()


def test_an_image_feature_does_not_depend_on_its_batch(
    encoder: Encoder, images: list[Path]
) -> None:
    together = fresh(encoder).image(images)
    for path, row in zip(images, together, strict=True):
        assert torch.equal(fresh(encoder).image([path])[0], row)
    assert not torch.equal(together[0], together[1])


def test_both_is_text_and_image_side_by_side(encoder: Encoder, images: list[Path]) -> None:
    text, image = encoder.text(PROMPTS), encoder.image(images)
    assert torch.equal(encoder.embed("text", PROMPTS, images), text)
    assert torch.equal(encoder.embed("image", PROMPTS, images), image)
    both = encoder.embed("both", PROMPTS, images)
    assert torch.equal(both, torch.cat([text, image], dim=1))
    assert text.shape == image.shape  # halves of equal width: DISCO compares them one by one


def test_the_datasets_tokens_lie_further_apart_than_tau(features) -> None:
    tokens = torch.stack([rows[:40].mean(dim=0) for rows in features.values()])
    assert len(tokens) == 12
    likeness = cosine(tokens, tokens).fill_diagonal_(-1)
    worst = divmod(int(likeness.argmax()), 12)
    names = list(features)
    assert float(likeness.max()) < 0.9, f"{names[worst[0]]} and {names[worst[1]]} are alike"


def test_clients_of_one_dataset_lie_nearer_than_tau(features) -> None:
    for name, rows in features.items():
        halves = torch.stack([rows[:20].mean(dim=0), rows[20:40].mean(dim=0)])
        assert float(cosine(halves, halves)[0, 1]) >= 0.9, name


def test_single_prompts_are_nearest_their_own_dataset_unless_they_are_another_s_too(
    features,
) -> None:
    tokens = torch.stack([features[name][:40].mean(dim=0) for name in TASK_ORDER])
    hits = {
        name: (cosine(features[name][40:], tokens).argmax(dim=1) == at).float()
        for at, name in enumerate(TASK_ORDER)
    }
    alike = ("IconQA", "CLEVR-Math", "super-CLEVR")  # they share question kinds word for word
    own = torch.cat([hits[name] for name in TASK_ORDER if name not in alike])
    assert float(own.mean()) >= 0.97
    assert float(torch.cat([hits[name] for name in alike]).mean()) >= 0.6


def test_a_folder_that_is_no_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(FcitError, match=str(tmp_path)):
        Encoder(tmp_path)
