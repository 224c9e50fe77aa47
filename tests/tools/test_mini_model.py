"""The mini checkpoints: ordinary folders, a tokenizer without unknown words, exact packing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fcit.models import CHECKPOINTS
from tools.mini_models import architecture as mini
from tools.mini_models.losses import LmmBatch, layout, lmm_hidden

STRINGS = (
    "red star 0.15",
    "What is it?\nA) one\n\tB) two",
    "  spaces   stay  ",
    "naïve 漢字 🙂 Ωμέγα",
    "[0.10,0.20,0.50,0.60]",
    "zyzzyva-42!",
)


@pytest.fixture(scope="module")
def tokenizer():
    return mini.build_tokenizer(["What is it?", " a red star"] * 3, ["red", "star", "house"], 600)


def test_any_string_survives_the_tokenizer(tokenizer):
    for text in STRINGS:
        encoded = tokenizer.encode(text)
        assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text
        assert mini.UNK not in encoded.ids


def test_words_are_single_tokens_and_digits_stand_alone(tokenizer):
    assert tokenizer.encode("What is red star house").tokens[-2:] == ["Ġstar", "Ġhouse"]
    assert tokenizer.encode("123").tokens == ["1", "2", "3"]
    assert tokenizer.get_vocab_size() <= 600


def test_special_tokens_have_the_ids_the_models_are_configured_with(tokenizer):
    assert [tokenizer.token_to_id(text) for text in mini.SPECIALS] == list(range(7))
    assert mini.EOS != 2


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer):
    root = tmp_path_factory.mktemp("checkpoints")
    size = tokenizer.get_vocab_size()
    mini.save_lmm(root / "mini-lmm", mini.lmm(size), tokenizer, "card")
    mini.save_clip(root / "mini-clip", mini.clip(size), tokenizer, "card")
    return root


def _messages():
    return [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a star"}]},
        {"role": "user", "content": [{"type": "text", "text": "Red?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
    ]


def test_chat_template_is_the_format_of_pretraining(folders, tokenizer):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folders / "mini-lmm")
    text = processor.apply_chat_template(_messages())
    assert text == ("USER: <image>\nWhat is it? ASSISTANT: a star</s>USER: Red? ASSISTANT: yes</s>")
    image = Image.new("RGB", (48, 48), (255, 0, 0))
    inputs = processor(images=image, text=text, return_tensors="pt")
    ids, learnt = mini.segment(tokenizer, [("What is it?", "a star"), ("Red?", "yes")])
    assert inputs["input_ids"][0].tolist() == mini.prefix(tokenizer) + ids
    said = [one for one, flag in zip(ids, learnt, strict=True) if flag]
    assert tokenizer.decode(said, skip_special_tokens=False) == " a star</s> yes</s>"
    asked = processor.apply_chat_template(_messages()[:1], add_generation_prompt=True)
    assert text.startswith(asked)


def test_48_pixel_images_pass_unscaled_and_others_are_fitted(folders):
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folders / "mini-lmm", backend="pil")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    seen = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(seen, mini.normalise(pixels[None]))
    for size in ((100, 60), (20, 31)):
        other = processor(Image.new("RGB", size), return_tensors="pt")["pixel_values"]
        assert other.shape == (1, 3, 48, 48)


def test_clip_pools_at_the_end_of_the_text(folders):
    from transformers import AutoTokenizer, CLIPModel

    words = AutoTokenizer.from_pretrained(folders / "mini-clip")
    model = CLIPModel.from_pretrained(folders / "mini-clip", dtype=torch.float32).eval()
    batch = words(["red", "a red star house"], padding=True, return_tensors="pt")
    assert (batch["input_ids"] == mini.EOS).sum(1).tolist() == [1, 1]
    with torch.no_grad():
        out = model.text_model(**batch)
        alone = model.text_model(**words(["red"], return_tensors="pt"))
    ends = (batch["input_ids"] == mini.EOS).int().argmax(1)
    torch.testing.assert_close(out.pooler_output, out.last_hidden_state[torch.arange(2), ends])
    torch.testing.assert_close(out.pooler_output[:1], alone.pooler_output, atol=1e-5, rtol=1e-4)
    long = words("red " * 300, truncation=True)["input_ids"]
    assert len(long) == mini.CLIP_POSITIONS
    assert long[-1] == mini.EOS
    image = model.get_image_features(pixel_values=torch.zeros(1, 3, 48, 48)).pooler_output
    assert image.shape[-1] == out.pooler_output.shape[-1]


def test_packed_conversations_are_scored_as_if_each_were_alone(tokenizer):
    model = mini.lmm(tokenizer.get_vocab_size()).eval()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, 48, 48, 3), dtype=np.uint8)
    parts = [
        mini.segment(tokenizer, turns)[0]
        for turns in ([("What is it?", "star")], [("red?", "a"), ("house?", "b")])
    ]
    opening = torch.tensor(mini.prefix(tokenizer))
    width = sum(map(len, parts)) + 3
    ids, part = np.zeros((1, width), np.int64), np.zeros((1, width), np.int64)
    at = 0
    for number, one in enumerate(parts, 1):
        ids[0, at : at + len(one)], part[0, at : at + len(one)] = one, number
        at += len(one)
    batch = LmmBatch(images, None, None, None, None, ids, part, None)
    with torch.no_grad():
        hidden, _, _ = lmm_hidden(model, opening, batch)
        start = 0
        for one in parts:
            whole = torch.cat([opening, torch.tensor(one)])[None]
            alone = model.model(input_ids=whole, pixel_values=mini.normalise(images))
            # The state before a conversation's second token is at its first.
            expected = alone.last_hidden_state[0, len(opening) : -1]
            found = hidden[0, start + 1 : start + len(one)]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
            start += len(one)


def test_layout_hides_conversations_from_each_other():
    place, seen = layout(torch.tensor([[1, 1, 2, 2, 0]]), 3)
    assert place.tolist() == [[0, 1, 2, 3, 4, 3, 4, 3]]
    assert seen.shape == (1, 1, 8, 8)
    assert seen[0, 0, 5].tolist() == [True, True, True, False, False, True, False, False]
    assert seen[0, 0, 4].tolist() == [True] * 5 + [False] * 3


@pytest.mark.parametrize("name", ["mini-lmm", "mini-clip"])
def test_a_shipped_checkpoint_is_small_and_tells_how_it_was_made(name: str):
    folder = CHECKPOINTS / name
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "python -m tools.mini_models" in card
    assert "apache-2.0" in card
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "float16"


def test_the_shipped_checkpoints_take_at_most_16_megabytes():
    files = [path for path in CHECKPOINTS.rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) <= 16_000_000


def test_the_shipped_lmm_can_see():
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from fcit.suite import draw

    folder = CHECKPOINTS / "mini-lmm"
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder)
    right = 0
    colours = ("red", "green", "blue", "yellow")
    for colour in colours:
        image = draw.canvas()
        draw.put(image, draw.sprite("square", 30, colour), (9, 9))
        turn = [{"type": "image"}, {"type": "text", "text": "Tell its color."}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": turn}], add_generation_prompt=True
        )
        inputs = processor(images=image, text=text, return_tensors="pt")
        made = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        answer = processor.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        right += answer.strip() == colour
    assert right >= 3
