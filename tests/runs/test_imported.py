"""A checkpoint of the reference implementation, made by hand in its format, as a run of fcit."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from commandline import call
from fcit.models import CHECKPOINTS
from fcit.models.identity import Encoder
from fcit.recipe import config as configs
from fcit.rounds.client import Data
from fcit.rounds.evaluate import activate
from fcit.runs import api
from fcit.runs.imported import import_reference
from fcit.types import FcitError, Sample
from handmade import PROMPTS, model

SLOTS, RANK, ALPHA = 4, 8, 16
"""K slots that share r: each has r / K = 2 columns, and every product is multiplied by alpha / r."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slots opened, two never: their tokens and sizes are zero, and their B is not zero here, so
    that their share of the softmax can be seen."""
    folder = tmp_path_factory.mktemp("reference") / "llava_lora_finetune_epoch_9"
    folder.mkdir()
    noise = torch.Generator().manual_seed(5)
    lora: dict[str, torch.Tensor] = {}
    for path, layer in model().subspaces.layers.items():
        short = re.search(r"layers\.\d+\.mlp\.\w+$", path)[0]
        start = f"base_model.model.model.{short}"
        width, out = layer.base.in_features, layer.base.out_features
        for slot in range(SLOTS):
            a = torch.empty(RANK // SLOTS, width).normal_(0, 0.1, generator=noise)
            b = torch.empty(out, RANK // SLOTS).normal_(0, 0.1, generator=noise)
            lora[f"{start}.lora_A.loraA.{slot}.weight"] = a.bfloat16()
            lora[f"{start}.lora_B.loraB.{slot}.weight"] = b.bfloat16()
        lora[f"{start}.lora_AB.weight"] = torch.zeros(RANK, RANK)
    tokens = Encoder(CHECKPOINTS / "mini-clip").embed("text", PROMPTS, [])
    width = tokens.shape[1]
    others = {}
    for slot in range(8):  # it always has eight places for tokens, also where there are four slots
        row = tokens[slot] if slot < 2 else torch.zeros(width)
        others[f"base_model.model.global_text_feature.{slot}"] = row.bfloat16()
        others[f"base_model.model.global_image_feature.{slot}"] = torch.zeros(width).bfloat16()
        others[f"base_model.model.cluster_text_size.{slot}"] = torch.tensor([300.0 * (slot < 2)])
    for name, value in model().base_projector.items():
        place = {"linear_1": "0", "linear_2": "2"}[name.split(".")[-2]]
        key = f"base_model.model.model.mm_projector.{place}.{name.split('.')[-1]}"
        others[key] = (value * 1.01).bfloat16()
    torch.save(lora, folder / "adapter_model.bin")
    torch.save(others, folder / "non_lora_trainables.bin")
    numbers = {"r": RANK, "lora_alpha": ALPHA, "expert_num": SLOTS}
    (folder / "adapter_config.json").write_text(json.dumps(numbers))
    return folder


@pytest.fixture(scope="module")
def recipe(table: dict) -> dict:
    return copy.deepcopy(table) | {"model": {"dtype": "float32", "device": "cpu"}}


@pytest.fixture(scope="module")
def imported(checkpoint: Path, recipe: dict, tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    out = tmp_path_factory.mktemp("imported") / "run"
    return import_reference(checkpoint, configs.validate(recipe), out)


def test_it_answers_by_the_references_rule(
    imported: api.Run, checkpoint: Path, suite: Path
) -> None:
    """alpha = softmax(cos(f, token_k) / 0.05) over all K slots, and Linear(x) + alpha/r B diag A x."""
    worker = imported.worker
    image = next(iter(sorted((suite / "datasets").rglob("*.png"))))
    prompt = "How many icons are there in all?\nAnswer the question using a single word or phrase."
    data = Data([Sample("", "", str(image), prompt, ("",))], [image])
    route = activate(worker.model, worker.encoder, worker.method, worker.placed, data)[0]

    lora = torch.load(checkpoint / "adapter_model.bin", weights_only=True)
    others = torch.load(checkpoint / "non_lora_trainables.bin", weights_only=True)
    start = "base_model.model."
    tokens = torch.stack([others[f"{start}global_text_feature.{k}"].float() for k in range(SLOTS)])
    feature = Encoder(CHECKPOINTS / "mini-clip").embed("text", [prompt], [])
    shares = F.softmax(F.cosine_similarity(tokens, feature, dim=1) / 0.05, dim=0)
    assert torch.allclose(torch.tensor(list(route.activation.values())), shares, atol=1e-5)
    assert 0 < shares[2] == shares[3] < shares.max()

    path, layer = next(iter(worker.model.subspaces.layers.items()))
    short = f"{start}model.{re.search(r'layers.*$', path)[0]}"
    a = torch.cat([lora[f"{short}.lora_A.loraA.{k}.weight"] for k in range(SLOTS)]).float()
    b = torch.cat([lora[f"{short}.lora_B.loraB.{k}.weight"] for k in range(SLOTS)], dim=1).float()
    x = torch.randn(1, 3, layer.base.in_features, generator=torch.Generator().manual_seed(1))
    middle = F.linear(x, a) * shares.repeat_interleave(RANK // SLOTS)
    expected = layer.base(x) + F.linear(middle, b) * (ALPHA / RANK)
    assert torch.allclose(layer(x), expected, atol=1e-5)
    assert not torch.allclose(layer(x), layer.base(x), atol=1e-3)
    key = next(name for name in worker.placed.projector if name.endswith("linear_1.weight"))
    assert torch.equal(
        worker.placed.projector[key], others[f"{start}model.mm_projector.0.weight"].float()
    )


def test_what_a_recipe_says_of_training_is_not_said_of_the_checkpoint(
    checkpoint: Path, recipe: dict, tmp_path: Path
) -> None:
    federation = recipe["federation"] | {"outlier_factor": 0}
    private = recipe | {
        "federation": federation,
        "privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0, "token_noise": 1.0},
    }
    run = import_reference(checkpoint, configs.validate(private), tmp_path / "private")
    assert not run.config.privacy.on
    ranks = recipe | {"federation": recipe["federation"] | {"ranks": [4, 8]}}
    run = import_reference(checkpoint, configs.validate(ranks), tmp_path / "ranks")
    assert run.config.federation.ranks == ()


def test_its_state_is_the_checkpoints(imported: api.Run) -> None:
    assert list(imported.state.adapters) == ["0", "1", "2", "3"]
    assert imported.state.extras["identity"]["samples"].tolist() == [300, 300, 0, 0]
    assert (imported.config.method.rank, imported.config.method.scale) == (2, 2.0)
    assert imported.experiment.setting.datasets == ("IconQA", "FigureQA")
    assert "llava_lora_finetune_epoch_9" in imported.files.table()["versions"]["imported"]


def test_it_is_evaluated_exported_and_reported(imported: api.Run, tmp_path: Path) -> None:
    done = call("evaluate", imported.folder)
    assert done.returncode == 0, done.stderr
    found = imported.results
    assert found["stages"] == ["all"] and len(found["matrix"]) == 1 and found["routing"] == {}
    assert found["last"] == found["avg"]
    assert call("export", imported.folder, "--all", "--out", tmp_path / "all").returncode == 0
    assert (tmp_path / "all" / "adapters" / "3").is_dir()
    assert call("report", imported.folder, "--out", tmp_path / "page").returncode == 0
    why = call("why", imported.folder, "IconQA", "--wrong")
    assert why.returncode == 0 and "does not say who trained its subspaces" in why.stdout
    assert "another dataset" not in why.stdout and " *" not in why.stdout.replace("* trained", "")


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (
            "adapter_model.bin",
            lambda t: {k: v for k, v in t.items() if "B.1" not in k},
            r"adapter_model\.bin: slot \d has",
        ),
        (
            "adapter_model.bin",
            lambda t: t | {"x.lora_E.weight": torch.ones(2)},
            "x.lora_E.weight is no",
        ),
        (
            "adapter_model.bin",
            lambda t: {k: v[:1] for k, v in t.items()},
            "and the base model makes it",
        ),
        ("adapter_model.bin", lambda t: {k: v * torch.inf for k, v in t.items()}, "finite"),
        ("adapter_model.bin", lambda t: 3, "not a checkpoint file of tensors"),
        (
            "non_lora_trainables.bin",
            lambda t: {k: v for k, v in t.items() if "text_f" not in k},
            "no global",
        ),
        (
            "non_lora_trainables.bin",
            lambda t: {k: v * 0 for k, v in t.items()},
            "no slot has an identity",
        ),
        (
            "non_lora_trainables.bin",
            lambda t: {k: v for k, v in t.items() if "proj" not in k},
            "has no .*linear",
        ),
        (
            "adapter_config.json",
            lambda t: t | {"expert_num": 3},
            r"adapter_config\.json: must have r",
        ),
        ("adapter_config.json", None, r"adapter_config\.json"),
        ("adapter_model.bin", None, "no such file"),
    ],
)
def test_what_does_not_fit_is_named(
    file: str, change, said: str, checkpoint: Path, recipe: dict, tmp_path: Path
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    if change is None:
        (folder / file).unlink()
    elif file.endswith(".json"):
        (folder / file).write_text(json.dumps(change(json.loads((folder / file).read_text()))))
    else:
        torch.save(change(torch.load(folder / file, weights_only=True)), folder / file)
    with pytest.raises(FcitError, match=said):
        import_reference(folder, configs.validate(recipe), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_makes_a_run(checkpoint: Path, recipe: dict, tmp_path: Path) -> None:
    configs.write(tmp_path / "recipe.toml", recipe)
    words = ["import-reference", checkpoint, "--recipe", tmp_path / "recipe.toml"]
    done = call(*words, "--out", tmp_path / "run")
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "run")), done.stderr
    again = call(*words, "--out", tmp_path / "run")
    assert again.returncode == 2 and len(again.stderr.strip().splitlines()) == 1
