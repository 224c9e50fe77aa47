"""What `fcit export --vllm` writes keeps vLLM's written rules for LoRA, and computes what the run does.

The rules are those of vllm/lora/peft_helper.py, vllm/lora/lora_model.py, vllm/config/lora.py and, for the
names of layers, vllm/model_executor/models/llava.py. `benchmarks/by_vllm.py` asks vLLM itself.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForImageTextToText

import handmade
from fcit.models import CHECKPOINTS
from fcit.models.images import open_image, pad_to_square
from fcit.models.lmm import LMM
from fcit.models.saving import save_merged
from fcit.runs.api import Run
from fcit.types import FcitError, Sample
from fcit.use import export

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
LINEAR = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj", "fc1", "fc2", "out_proj"}
PACKED = {"qkv_proj": {"q_proj", "k_proj", "v_proj"}, "gate_up_proj": {"gate_proj", "up_proj"}}
EXPECTED = set().union(*(PACKED.get(name, {name}) for name in LINEAR))


def command(folder: Path) -> dict[str, list[str]]:
    """The options of the command in a card, with their values."""
    (line,) = re.findall(r"```sh\n(.*?)```", (folder / "README.md").read_text(), re.S)
    words = shlex.split(line.replace("\\\n", " "))
    assert words[:3] == ["vllm", "serve", "base"]
    assert (folder / "base" / "config.json").is_file()
    options: dict[str, list[str]] = {}
    for word in words[3:]:
        options.setdefault(word, []) if word.startswith("--") else options[[*options][-1]].append(
            word
        )
    return options


def check(folder: Path, largest: int) -> None:
    """vLLM's rules for one LoRA folder."""
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["r"] <= largest
    assert isinstance(config["lora_alpha"], int)
    assert not config.get("modules_to_save") and not config.get("use_dora")
    assert config["bias"] == "none"
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118
            path, factor, end = name.rsplit(".", 2)
            assert (factor, end) in (("lora_A", "weight"), ("lora_B", "weight"))
            assert path.startswith("base_model.model.model.language_model.layers.")
            assert path.rpartition(".")[2] in EXPECTED
            assert file.get_slice(name).get_shape()[factor == "lora_B"] == config["r"]


def logits(run: Run, gate: list[float], image: Path, folder: Path, adapter: str) -> tuple:
    """A run's logits with a gate, then those of an exported base and one of its adapters, by PEFT."""
    model = run.worker.model
    model.gate = torch.tensor([gate])
    batch = model.batch([Sample("", "", "", handmade.PROMPTS[0], ("seven",))], [image])
    square = pad_to_square(open_image(image))
    pixels = model.processor.image_processor(square, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        ours, _ = model.logits(batch)
        changed = run.worker
        export.served(run, folder)
        assert run.worker is not changed
        base = AutoModelForImageTextToText.from_pretrained(folder / "base")
        peft = PeftModel.from_pretrained(base, folder / "adapters" / adapter).eval()
        full = peft(input_ids=batch.ids, attention_mask=batch.mask, pixel_values=pixels).logits
    return ours, full[:, :-1][batch.labels[:, 1:] != -100]


@pytest.mark.parametrize("times", [1, 2])
def test_a_clip_towers_weights_are_named_as_in_published_checkpoints(
    times: int, tmp_path: Path
) -> None:
    """vLLM 0.32 and transformers before 5.20 read no other names. times: what was exported is exported
    again."""
    folder = CHECKPOINTS / "mini-lmm"
    kept = AutoModelForImageTextToText.from_pretrained(folder).float().state_dict()
    for number in range(times):
        model = LMM(folder)
        folder = tmp_path / str(number)
        save_merged(model, folder, torch.float32)
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = [name for name in file.keys() if name.startswith("vision_tower.")]  # noqa: SIM118
    assert names and all(name.startswith("vision_tower.vision_model.") for name in names)
    again = AutoModelForImageTextToText.from_pretrained(folder).state_dict()
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[name], kept[name]) for name in again if "vision_tower" in name)


def test_every_subspace_is_a_plain_lora_over_the_runs_projector(
    table: dict, tmp_path: Path
) -> None:
    run = handmade.run(tmp_path / "run", table)
    image = handmade.picture(tmp_path / "photo.png")
    ours, theirs = logits(run, [0.0, 1.0], image, tmp_path / "out", "1")
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    options = command(tmp_path / "out")
    assert options["--lora-modules"] == ["0=adapters/0", "1=adapters/1"]
    assert options["--max-loras"] == ["2"] and "--enable-lora" in options
    (limit,) = map(int, options["--max-lora-rank"])
    assert limit in RANKS
    for name in ("0", "1"):
        check(tmp_path / "out" / "adapters" / name, limit)
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "vLLM opens one adapter per request with weight 1, and this run weighs and mixes them"
        in card
    )
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    compile(code, "card", "exec")
    assert 'model="0"' in code


def test_adapters_that_are_always_open_together_are_one(table: dict, tmp_path: Path) -> None:
    run = handmade.run(tmp_path / "run", table, "olora")
    image = handmade.picture(tmp_path / "photo.png")
    ours, theirs = logits(run, [1.0, 1.0], image, tmp_path / "out", "all")
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    options = command(tmp_path / "out")
    assert options["--lora-modules"] == ["all=adapters/all"]
    assert options["--max-lora-rank"] == ["8"]  # two of rank 4
    check(tmp_path / "out" / "adapters" / "all", 8)
    assert "Its limit" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        (
            "disco",
            {"projector": "isolated"},
            "trained a projector for each adapter, and vLLM has one",
        ),
        ("individual", {}, "trained a projector for each adapter"),
        ("hide", {}, "has a `activate` of its own"),
        ("l2p", {}, "cannot be exported: its `equip`"),
    ],
)
def test_what_vllm_cannot_serve_is_one_line(
    method: str, options: dict, said: str, table: dict, tmp_path: Path
) -> None:
    run = handmade.run(tmp_path / "run", table, method, **options)
    with pytest.raises(FcitError, match=said) as refused:
        export.served(run, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
