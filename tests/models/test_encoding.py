"""SigLIP and sentence-transformers encoders: features as their own files say, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from PIL import Image

from encoders import CHARACTERS, LENGTH, OLD, sentences, siglip, write
from fcit.models.identity import Encoder
from fcit.models.size import encoder_size
from fcit.types import FcitError

TEXTS = ["How many?", "Is it red or blue, and how many of them"]
NEW = [
    "sentence_transformers.base.modules.transformer.Transformer",
    "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "sentence_transformers.base.modules.normalize.Normalize",
]
FORWARD = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


def ids(text: str, length: int = LENGTH) -> list[int]:
    inside = [CHARACTERS.index(c) if c in CHARACTERS else 3 for c in text.strip()]
    return [1, *inside[: length - 2], 2]


def states(folder: Path, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """A BERT's last states [n, tokens, d] of texts in one padded batch, and its mask."""
    rows = [torch.tensor(ids(text)) for text in texts]
    inputs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([row * 0 + 1 for row in rows], batch_first=True)
    model: Any = hf.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(input_ids=inputs, attention_mask=mask).last_hidden_state, mask[..., None]


def near(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_sentence_encoder_takes_the_mean_of_its_last_states(tmp_path: Path) -> None:
    folder = sentences(tmp_path / "st")
    rows, mask = states(folder, TEXTS)
    encoder = Encoder(folder)
    near(encoder.embed("text", TEXTS, []), (rows * mask).sum(1) / mask.sum(1))
    assert encoder_size(folder) == (16, encoder.features.model.num_parameters())
    assert torch.equal(encoder.text(["x" * 50]), encoder.text(["x" * 90]))


def test_its_newer_files_its_prompt_and_its_normalisation_are_followed(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "Q ", "none": ""}, "default_prompt_name": "query"}
    pooling = {"embedding_dimension": 16, "pooling_mode": ["mean", "cls"], "include_prompt": True}
    settings = {"transformer_task": "feature-extraction", "modality_config": FORWARD}
    settings |= {"module_output_name": "token_embeddings", "max_seq_length": LENGTH}
    folder = sentences(tmp_path / "st", pooling, settings, prompts, NEW)
    rows, mask = states(folder, [f"Q {text}" for text in TEXTS])
    mean = (rows * mask).sum(1) / mask.sum(1)
    want = torch.cat([rows[:, 0], mean], dim=1)
    near(Encoder(folder).text(TEXTS), want / want.norm(dim=1, keepdim=True))
    assert encoder_size(folder)[0] == 32


def test_other_poolings_leave_out_a_prompt_where_the_files_say_so(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "Q: "}, "default_prompt_name": "query"}
    names = ("max_tokens", "mean_sqrt_len_tokens", "lasttoken")
    pooling = {f"pooling_mode_{name}": True for name in names}
    pooling |= {"pooling_mode_mean_tokens": False, "include_prompt": False}
    settings = {
        "do_lower_case": True
    }  # without max_seq_length: as many as model and tokenizer take
    folder = sentences(tmp_path / "st", pooling, settings, prompts)
    short = "Red?"
    rows, _ = states(folder, ["q: red?"])
    counted = rows[0, 3:]  # [CLS], and "q:": a prompt is stripped before its tokens are counted
    assert ids("q: red?")[:3] == [1, CHARACTERS.index("q"), 3]
    want = torch.cat([counted.amax(0), counted.sum(0) / len(counted) ** 0.5, counted[-1]])
    encoder = Encoder(folder)
    near(encoder.text([short])[0], want)
    assert encoder.features.length == LENGTH + 8


def test_tensors_of_its_own_pooler_may_be_missing(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = sentences(tmp_path / "st")
    want = Encoder(folder).text(TEXTS)
    file = folder / "model.safetensors"
    tensors = {name: value for name, value in load_file(file).items() if "pooler" not in name}
    tensors["embeddings.position_ids"] = torch.arange(3)
    save_file(tensors, file, {"format": "pt"})
    assert torch.equal(Encoder(folder).text(TEXTS), want)
    save_file(tensors | {"other.weight": torch.ones(1)}, file, {"format": "pt"})
    with pytest.raises(FcitError, match=r"the first is other\.weight"):
        Encoder(folder)


@pytest.mark.parametrize("version", ["Siglip", "Siglip2"])
def test_a_siglip_pads_texts_and_pools_images(version: str, tmp_path: Path) -> None:
    folder = siglip(tmp_path / "siglip", version)
    image = Image.new("RGB", (40, 40), "red")
    image.putpixel((3, 3), (0, 0, 255))
    image.save(tmp_path / "image.png")
    model: Any = hf.AutoModel.from_pretrained(folder).eval()
    words = hf.AutoTokenizer.from_pretrained(folder)
    inputs = words(
        TEXTS, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    )
    assert inputs["input_ids"].shape == (2, LENGTH)
    pixels = getattr(hf, f"{version}ImageProcessorPil").from_pretrained(folder)(image)
    pixels = pixels.convert_to_tensors("pt")
    with torch.no_grad():
        text = model.get_text_features(**inputs).pooler_output
        seen = model.get_image_features(**pixels).pooler_output
    encoder = Encoder(folder, kind="both")
    near(encoder.embed("text", TEXTS, []), text)
    near(encoder.embed("image", [], [tmp_path / "image.png"]), seen)
    for kind, width in {"text": 16, "image": 16, "both": 32}.items():
        assert encoder_size(folder, kind) == (width, model.num_parameters())


def test_tokens_of_images_need_an_image_tower(tmp_path: Path) -> None:
    folder, odd = sentences(tmp_path / "st"), siglip(tmp_path / "odd", hidden_size=32)
    for kind in ("image", "both"):
        said = rf"\[model\] identity: \S+st has no image tower, which tokens of {kind} need"
        with pytest.raises(FcitError, match=said):
            Encoder(folder, "cpu", kind)
        with pytest.raises(FcitError, match=said):
            encoder_size(folder, kind)
    with pytest.raises(FcitError, match="16 numbers for a text and 32 for an image"):
        Encoder(odd, kind="both")
    with pytest.raises(FcitError, match="no image tower"):
        Encoder(siglip(tmp_path / "blind", vision_use_head=False), kind="image")


CUSTOM = ["custom_st.Transformer", OLD[1]]
REFUSED = [
    ({"types": [*OLD[:2], "sentence_transformers.Dense"]}, "Transformer, Pooling, Dense; under"),
    ({"types": CUSTOM}, r"modules\.json: custom_st\.Transformer"),
    ({"pooling": {"pooling_mode_weightedmean_tokens": True}}, "pooling by mean, weightedmean_tokens"),
    ({"pooling": {"pooling_mode": "first"}}, r"1_Pooling/config\.json: pooling by first; understood"),
    ({"pooling": {"pooling_mode_mean_tokens": False}}, "pooling by nothing"),
    ({"settings": {"max_seq_length": 0}}, "max_seq_length = 0"),
    ({"settings": {"tokenizer_args": {"padding_side": "left"}}}, "tokenizer_args = .*understood is {}"),
    ({"settings": {"modality_config": {"text": {"method": "encode"}}}}, r"modality_config\.text = "),
    ({"settings": {"max_seq_length": LENGTH + 90}}, "does not load"),
    ({"prompts": {"prompts": {}, "default_prompt_name": "q"}}, "does not load: KeyError: 'q'"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_understood_is_one_line(changes: dict, said: str, tmp_path: Path) -> None:
    folder = sentences(tmp_path / "st", **changes)
    with pytest.raises(FcitError, match=said) as refused:
        Encoder(folder)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"[model] identity: {folder} does not load: ")


def test_a_model_without_modules_json_is_no_encoder(tmp_path: Path) -> None:
    folder = sentences(tmp_path / "st")
    (folder / "modules.json").unlink()
    with pytest.raises(FcitError, match="neither a CLIP nor a SigLIP.*no modules.json"):
        encoder_size(folder)
    write(folder, modules=[{"type": kind, "path": ""} for kind in OLD[:1]])
    with pytest.raises(FcitError, match=r"modules\.json: Transformer; understood"):
        encoder_size(folder)
    write(folder, modules=[{"type": kind, "path": "there"} for kind in OLD[:2]])
    with pytest.raises(FcitError, match="the Transformer is in 'there'"):
        encoder_size(folder)
    (folder / "modules.json").write_text("{")
    with pytest.raises(FcitError, match=r"does not load: modules\.json: "):
        encoder_size(folder)


def test_no_code_of_an_encoder_runs(tmp_path: Path) -> None:
    folder = sentences(tmp_path / "st")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass A: pass\n")
    table = json.loads((folder / "config.json").read_text())
    write(folder, config=table | {"auto_map": {"AutoModel": "evil.A", "AutoConfig": "evil.A"}})
    for read in (Encoder, encoder_size):
        with pytest.raises(FcitError, match="auto_map names Python code"):
            read(folder)
    assert not (tmp_path / "ran").exists()
