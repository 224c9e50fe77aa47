"""The paper's recipes: its hyper-parameters, and that they run on data of the official form."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import fcit
import official
from fcit.recipe import config
from fcit.worker.experiment import Experiment

PAPER = Path(__file__).parents[2] / "recipes" / "paper"
NAMES = ("task-hom", "task-het", "cap-hom", "cap-het")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_the_papers_federation_and_hyper_parameters(name: str) -> None:
    got = config.load(PAPER / f"{name}.toml")
    one = Experiment(got)
    assert (one.setting.name, len(one.plan), len(one.plan[0])) == (
        name,
        8 if "task" in name else 4,
        10,
    )
    assert [turn.client for turn in one.plan[0][0]] == [2, 10, 11, 28, 41]  # RandomState(0)
    training, method = got.training, config.to_table(got)["method"]
    assert training.batch_size == (128 if "task" in name else 64)
    assert (training.lr, training.projector_lr, training.warmup) == (2e-4, 2e-5, 0.03)
    assert (training.epochs, training.weight_decay, training.dropout) == (1, 0.0, 0.05)
    assert (training.max_length, got.evaluation.max_new_tokens) == (2048, 128)
    assert (method["rank"], method["scale"], method["init_std"]) == (8, 2.0, 0.01)
    assert (method["tau"], method["temperature"], method["projector"]) == (0.9, 0.05, "shared")
    assert got.evaluation.scoring == "reference"
    assert got.model.path == "llava-hf/llava-1.5-7b-hf"
    assert got.model.template == "vicuna-v1"
    assert got.model.identity == "openai/clip-vit-large-patch14-336"


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_how_to_run_disco_as_the_reference_code_behaves(name: str) -> None:
    text = (PAPER / f"{name}.toml").read_text().replace("\\\n#", "")
    (line,) = (line for line in text.splitlines() if "as_reference" in line)
    words = shlex.split(line.removeprefix("#"))
    got = config.load(PAPER / f"{name}.toml", words[words.index("--set") + 1 :: 2])
    assert got.training.projector_lr == got.training.lr == 2e-4
    assert config.to_table(got)["method"]["as_reference"]
    assert got.method.subspace_limit == (8 if "task" in name else 4)


def test_cap_hom_says_the_order_of_the_references_evaluation() -> None:
    text = (PAPER / "cap-hom.toml").read_text()
    (change,) = re.findall(r"--set '(setting\.order=[^']*)'", text)
    stages = Experiment(config.load(PAPER / "cap-hom.toml", [change])).setting.stages
    assert [stage.tasks[0].name for stage in stages] == ["General", "Other", "Math", "Chart"]


def test_the_recipes_differ_in_setting_and_batch_alone() -> None:
    tables = [config.to_table(config.load(PAPER / f"{name}.toml")) for name in NAMES]
    for table in tables:
        del table["setting"]["name"], table["training"]["batch_size"]
    assert all(table == tables[0] for table in tables)


@pytest.mark.parametrize(
    ("name", "order"), [("task-hom", '["ImageNet-R", "ArxivQA"]'), ("cap-hom", '["Chart"]')]
)
def test_a_recipe_runs_on_data_of_the_official_form(name: str, order: str, tmp_path: Path) -> None:
    changes = (
        f"data.root={official.write(tmp_path / 'data')}", f"setting.order={order}",
        "model.path=", "model.identity=", "model.device=cpu", "model.dtype=float32",
        "federation.clients=2", "federation.per_round=2", "federation.rounds=1",
        "federation.workers=1", "evaluation.max_new_tokens=2",
        "evaluation.general_questions=0",
    )  # fmt: skip
    run = fcit.run(config.load(PAPER / f"{name}.toml", changes), tmp_path / "run")
    assert run.results["scoring"] == "reference"
    assert len(run.results["matrix"]) == (2 if name == "task-hom" else 1)
    assert all(value is not None for value in run.results["matrix"][-1])
