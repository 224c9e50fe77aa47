"""LLaVA checkpoints of the original format: the same weights, the same logits, clear refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from test_chat import SYSTEM_WORDS, WORDS, merges
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
)

from fcit.models.llava_original import configure
from fcit.models.lmm import LMM
from fcit.models.saving import save_merged
from fcit.models.size import model_size
from fcit.types import FcitError, Sample, State

SAMPLE = Sample("1", "IconQA", "a.png", "What is it?", ("two cats",))


class Original:
    """A LLaVA in the original format, and its own forward pass, written anew."""

    def __init__(self, folder: Path):
        torch.manual_seed(0)
        self.folder, self.clip = folder / "llava", folder / "clip"
        vocabulary, pairs = merges([*SYSTEM_WORDS, *WORDS, ":", "?", "▁"])
        config = LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
        )
        self.llama = LlamaForCausalLM(config).eval()
        vision = CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        )
        self.tower = CLIPVisionModel(vision).eval()
        self.tower.save_pretrained(self.clip)
        CLIPImageProcessorPil(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ).save_pretrained(self.clip)
        self.projector = torch.nn.Sequential(
            torch.nn.Linear(24, 32), torch.nn.GELU(), torch.nn.Linear(32, 32)
        )
        self.folder.mkdir()
        LlamaTokenizer(vocab=vocabulary, merges=pairs).save_pretrained(self.folder)
        self.config = config.to_dict() | {
            "model_type": "llava",
            "architectures": ["LlavaLlamaForCausalLM"],
            "mm_vision_tower": "openai/no-such-clip",
            "mm_projector_type": "mlp2x_gelu",
            "mm_vision_select_layer": -2,
            "mm_vision_select_feature": "patch",
            "tune_mm_mlp_adapter": False,
        }
        self.write()

    def write(self) -> None:
        (self.folder / "config.json").write_text(json.dumps(self.config))
        words = self.llama.state_dict()
        parts = {f"model.mm_projector.{k}": v for k, v in self.projector.state_dict().items()}
        names = sorted(words)
        shards = ({k: words[k] for k in names[:9]}, {k: words[k] for k in names[9:]} | parts)
        for number, shard in enumerate(shards, 1):
            torch.save(shard, self.folder / f"pytorch_model-0000{number}-of-00002.bin")

    @torch.no_grad()
    def logits(self, before: list[int], pixels: torch.Tensor, after: list[int]) -> torch.Tensor:
        """Words, patches of the layer before the last without the class token, words."""
        seen = self.tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        embed = self.llama.get_input_embeddings()
        rows = [embed(torch.tensor([before])), self.projector(seen), embed(torch.tensor([after]))]
        return self.llama(inputs_embeds=torch.cat(rows, dim=1)).logits


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    return Original(tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="module")
def model(original: Original) -> LMM:
    return LMM(original.folder, clip=original.clip)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "a.png"
    Image.effect_noise((16, 16), 90).convert("RGB").save(path)
    return path


def test_its_tower_is_exported_under_the_names_of_published_checkpoints(
    original: Original, tmp_path: Path
) -> None:
    save_merged(LMM(original.folder, clip=original.clip), tmp_path / "out", torch.float32)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    start = "vision_tower.vision_model."
    tower = {name: value for name, value in saved.items() if name.startswith("vision_tower.")}
    assert {name.removeprefix(start) for name in tower} == original.tower.state_dict().keys()
    for name, value in original.tower.state_dict().items():
        assert torch.equal(tower[start + name], value)


def test_rotary_keys_of_older_configurations_are_kept(original: Original, tmp_path: Path) -> None:
    """Original checkpoints have rope_theta and rope_scaling; transformers has rope_parameters."""
    folder = tmp_path / "llava"
    shutil.copytree(original.folder, folder)
    old = {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}}
    said = {key: value for key, value in original.config.items() if key != "rope_parameters"} | old
    (folder / "config.json").write_text(json.dumps(said))
    text = configure(folder, original.clip)[0].text_config
    assert text.rope_parameters["rope_theta"] == 5e5
    assert text.rope_parameters["factor"] == 4.0
    assert text.rope_parameters["rope_type"] == "linear"


def test_logits_are_the_originals(original: Original, model: LMM, picture: Path) -> None:
    batch = model.batch([SAMPLE], [picture])
    ids = batch.ids[0].tolist()
    at = ids.index(model.image_id)
    assert ids.count(model.image_id) == 4
    pixels = model.processor.image_processor(Image.open(picture), return_tensors="pt")[
        "pixel_values"
    ]
    theirs = original.logits(ids[:at], pixels, ids[at + 4 :])
    model.receive(State(), 2.0)
    with torch.no_grad():
        ours, _ = model.logits(batch)
    learnt = batch.labels[:, 1:] != -100
    wanted = theirs[:, :-1][learnt]
    torch.testing.assert_close(ours[:, : wanted.shape[1]], wanted, rtol=1e-4, atol=1e-5)
    assert (ours[:, wanted.shape[1] :].amax(dim=1) < wanted.amax(dim=1)).all()
    assert len(model.layers) == 6
    assert len(model.generate(["What is it?"], [picture], 3)) == 1


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("openai/clip-vit-large-patch14-336", "patch_size"),
        ("openai/clip-vit-large-patch8-336", "image_size"),
    ],
)
def test_another_clip_than_the_one_in_the_config_is_refused(
    original: Original, tmp_path: Path, named: str, said: str
) -> None:
    shutil.copytree(original.folder, tmp_path / "llava")
    (tmp_path / "llava" / "config.json").write_text(
        json.dumps(original.config | {"mm_vision_tower": named})
    )
    with pytest.raises(FcitError, match=f"its vision tower is {named}, and .* has {said}"):
        LMM(tmp_path / "llava", clip=original.clip)


def test_its_size_is_planned_by_its_own_configuration(original: Original, model: LMM) -> None:
    found = model_size(original.folder, original.clip)
    assert found.parameters == sum(value.numel() for value in model.model.parameters())
    assert (found.image_tokens, found.hidden, found.depth) == (4, 32, 2)
    with pytest.raises(FcitError, match="does not load: it is not on this disk"):
        model_size(original.folder)


def test_a_replaced_config_and_a_projector_of_its_own_file_load_too(
    original: Original, model: LMM, picture: Path, tmp_path: Path
) -> None:
    """The reference's config.json calls the model otherwise and names another tower."""
    changed = original.config | {
        "model_type": "llava_llama",
        "mm_text_tower": "x",
        "mlp_smoe": False,
    }
    changed["mm_vision_tower"] = str(original.clip)
    for file in original.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(changed))
    last = tmp_path / "pytorch_model-00002-of-00002.bin"
    shard = torch.load(last, weights_only=True)
    apart = {key: shard.pop(key) for key in list(shard) if "mm_projector" in key}
    torch.save(shard, last)
    torch.save(apart, tmp_path / "mm_projector.bin")
    other = LMM(tmp_path)
    with torch.no_grad():
        logits = [one.logits(one.batch([SAMPLE], [picture]))[0] for one in (model, other)]
    assert torch.equal(*logits)


def test_a_model_saved_from_it_is_transformers_own(
    original: Original, model: LMM, picture: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        before, _ = model.logits(model.batch([SAMPLE], [picture]))
    from fcit.models.loading import load

    whole, processor = load(original.folder, "cpu", torch.float32, clip=original.clip)
    whole.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = LMM(tmp_path)
    with torch.no_grad():
        after, _ = again.logits(again.batch([SAMPLE], [picture]))
    torch.testing.assert_close(after, before)


def altered(original: Original, folder: Path, **config) -> Path:
    for file in original.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_text(json.dumps(original.config | config))
    return folder


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio 'anyres' is not pad"),
        (
            {"mm_patch_merge_type": "spatial_unpad"},
            "mm_patch_merge_type 'spatial_unpad' is not flat",
        ),
        ({"image_grid_pinpoints": [[336, 672]]}, "image_grid_pinpoints .* is not understood"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end True is not understood"),
        ({"mm_hidden_size": 1152}, "has hidden_size 24"),
        ({"mm_hidden_size": ""}, "has hidden_size 24"),
        ({"mm_vision_tower": ["a"]}, "mm_vision_tower must be text, not a list"),
        ({"mm_vision_select_layer": 99}, "mm_vision_select_layer 99 is none of its .* 3 layers"),
        ({"mm_vision_select_layer": [-2]}, r"mm_vision_select_layer \[-2\] is none"),
        ({"mm_vision_select_layer": 0}, "mm_vision_select_layer 0 is none"),
    ],
)
def test_another_model_than_llava_15_is_refused_by_the_key(
    original, tmp_path, config, said
) -> None:
    with pytest.raises(FcitError, match=said):
        LMM(altered(original, tmp_path, **config), clip=original.clip)
    with pytest.raises(FcitError, match=said):
        model_size(tmp_path, original.clip)


def test_what_training_left_in_the_config_is_no_fault(original, tmp_path) -> None:
    left = {"image_aspect_ratio": "pad", "mm_hidden_size": 24, "mm_use_im_start_end": False}
    left |= {"mm_resampler_type": None, "mm_projector_lr": 2e-5, "image_grid_pinpoints": None}
    left |= {"mm_vision_select_layer": None}
    model = LMM(altered(original, tmp_path, **left), clip=original.clip)
    assert model.model.config.vision_feature_layer == -2  # LLaVA's, where the key says nothing


def test_tensors_come_from_one_file(original: Original, tmp_path: Path) -> None:
    """A projector that was trained before the rest is not read, as in LLaVA's own builder."""
    first = altered(original, tmp_path) / "pytorch_model-00001-of-00002.bin"
    parts = {f"model.mm_projector.{k}": v + 1 for k, v in original.projector.state_dict().items()}
    torch.save(parts, tmp_path / "mm_projector.bin")
    model = LMM(tmp_path, clip=original.clip)
    assert torch.equal(
        model.base_projector["linear_1.bias"], original.projector.state_dict()["0.bias"]
    )
    shutil.copy(first, tmp_path / "pytorch_model.bin")
    with pytest.raises(FcitError, match=r"pytorch_model\.bin: .* is in another file"):
        LMM(tmp_path, clip=original.clip)


def test_a_part_of_a_vision_tower_is_not_mixed_with_another(original, tmp_path: Path) -> None:
    last = altered(original, tmp_path) / "pytorch_model-00002-of-00002.bin"
    one = {"model.vision_tower.vision_tower.vision_model.post_layernorm.bias": torch.ones(24)}
    torch.save(torch.load(last, weights_only=True) | one, last)
    with pytest.raises(FcitError, match=r"lacks \d+ of the model's tensors, .*vision_tower"):
        LMM(tmp_path, clip=original.clip)


def test_a_tensor_that_is_left_over_is_named(original: Original, tmp_path: Path) -> None:
    last = altered(original, tmp_path) / "pytorch_model-00002-of-00002.bin"
    shard = torch.load(last, weights_only=True)
    torch.save(shard | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, last)
    LMM(tmp_path, clip=original.clip)
    torch.save(shard | {"model.image_newline": torch.ones(32)}, last)
    with pytest.raises(
        FcitError, match=r"00002\.bin: has 1 tensors .* first is model.image_newline"
    ):
        LMM(tmp_path, clip=original.clip)


def test_what_does_not_fit_is_named(original: Original, tmp_path: Path) -> None:
    folder = altered(original, tmp_path, mm_projector_type="linear")
    with pytest.raises(FcitError, match="mm_projector_type 'linear' is not mlp2x_gelu"):
        LMM(folder, clip=original.clip)
    altered(original, tmp_path, mm_vision_tower="")
    with pytest.raises(FcitError, match="names no mm_vision_tower; name the CLIP"):
        LMM(folder)
    altered(original, tmp_path)
    with pytest.raises(FcitError, match="quantize: a LLaVA checkpoint in the original format"):
        LMM(folder, clip=original.clip, quantize="4bit")
    last = tmp_path / "pytorch_model-00002-of-00002.bin"
    last.write_bytes(b"nothing")
    with pytest.raises(FcitError, match="00002.bin: not a checkpoint file"):
        LMM(folder, clip=original.clip)
    last.unlink()
    with pytest.raises(FcitError, match="lacks 16 of the model's tensors, the first is"):
        LMM(folder, clip=original.clip)


def test_a_tokenizer_that_needs_more_packages_says_which(original, tmp_path, monkeypatch) -> None:
    folder = altered(original, tmp_path)
    (folder / "tokenizer.json").unlink()
    monkeypatch.setattr("fcit.models.llava_original.is_sentencepiece_available", lambda: False)
    with pytest.raises(
        FcitError, match="tokenizer.model: reading it needs sentencepiece and protobuf"
    ):
        LMM(folder, clip=original.clip)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_a_checkpoint_runs_no_code(original: Original, tmp_path: Path, monkeypatch) -> None:
    folder = altered(original, tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.save({"model.norm.weight": Evil()}, tmp_path / "pytorch_model-00002-of-00002.bin")
    with pytest.raises(FcitError, match="not a checkpoint file"):
        LMM(folder, clip=original.clip)
    assert not (tmp_path / "ran").exists()
