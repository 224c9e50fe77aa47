"""The recipes of UCIT and MLLM-DCL: orders, hyper-parameters, and that such folders fit them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fcit.report.style
import neighbours
from fcit.benchmark import datasets
from fcit.cli import app
from fcit.files import read_json
from fcit.flower.shares import split
from fcit.planning.counts import SampleCounts
from fcit.recipe.config import Config, load
from fcit.recipe.sections import DataSection
from fcit.report.page import write
from fcit.types import Turn
from fcit.watch import Silent
from fcit.worker.experiment import Experiment
from fcit.worker.samples import Samples

RECIPES = Path(__file__).parents[2] / "recipes"
BENCHMARKS = {
    "ucit": (neighbours.ucit, neighbours.UCIT),
    "mllm-dcl": (neighbours.mllm_dcl, neighbours.MLLM_DCL),
}
SHORT = {
    "federation.rounds": 1,
    "training.batch_size": 4,
    "training.checkpointing": "false",
    "evaluation.scoring": "strict",
    "evaluation.general_questions": 0,
    "evaluation.max_new_tokens": 3,
}
MINI = ("model.path=", "model.identity=", "model.dtype=float32", "federation.workers=1")


@pytest.fixture(scope="module", params=BENCHMARKS)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    return request.param, BENCHMARKS[request.param][0](tmp_path_factory.mktemp("data") / "DATA")


def short(name: str, kind: str, root: Path, *changes: str) -> Config:
    clients = ("federation.clients=2", "federation.per_round=2") if kind == "task-hom" else ()
    return load(RECIPES / name / f"{kind}.toml", [f"data.root={root}", *MINI, *clients, *changes])


@pytest.mark.parametrize("kind", ["task-hom", "centralised"])
def test_a_recipe_plans_its_stages_in_the_published_order(
    made: tuple[str, Path], kind: str
) -> None:
    name, root = made
    config = short(name, kind, root, "evaluation.scoring=strict", "evaluation.general_questions=0")
    experiment = Experiment(config)
    experiment.prepare(Silent())
    experiment.check_images(train=True)
    order = BENCHMARKS[name][1]
    assert [stage.tasks[0].name for stage in experiment.setting.stages] == order
    counts = experiment.counts(experiment.training_setting)
    assert {task: sum(samples) for task, samples in counts.items()} == dict.fromkeys(order, 4)
    if kind == "centralised":
        assert counts == {task: [4] for task in order}
        assert len(experiment.plan[0]) == 1, "one epoch"
    planned = SampleCounts(experiment, [])
    turns = [turn for stage in experiment.plan for turns in stage for turn in turns]
    rounds = config.federation.rounds
    assert sum(planned.of_client(turn) or 0 for turn in turns) == 4 * rounds * len(order)
    assert planned.questions(order) == 2 * len(order)


def test_fcit_data_check_finds_nothing_wrong(made: tuple[str, Path]) -> None:
    done = CliRunner().invoke(app, ["data", "check", str(made[1])])
    assert done.exit_code == 0, done.output
    assert "nothing wrong" in done.output


def test_a_clients_own_folder_reads_the_same(made: tuple[str, Path], tmp_path: Path) -> None:
    name, root = made
    changes = "evaluation.where=clients", "evaluation.scoring=strict"
    config = short(name, "task-hom", root, *changes)
    folders = [tmp_path / f"client-{client}" for client in range(2)]
    split(config, folders, Silent())
    whole = Experiment(config)
    for client, folder in enumerate(folders):
        own = Experiment(config, DataSection(root=str(folder)))
        for stage in whole.training_setting.stages:
            turn = Turn(client, stage.tasks[0], 0, 0)
            mine, theirs = own.data(turn), whole.data(turn)
            assert list(mine.samples) == list(theirs.samples)
            assert [p.read_bytes() for p in mine.images] == [p.read_bytes() for p in theirs.images]
            task = turn.task.name
            assert own.test_share(task, client) == whole.test_share(task, client)
            assert own.dataset(task).rule == whole.dataset(task).rule
            assert datasets.find(task, folder).rule == datasets.find(task, root).rule


def test_a_short_run_learns_and_answers_every_dataset(
    made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the folder as it is, one of its images lost, to a report; with the mini model. The figures,
    which take most of a report's time, stay empty."""
    (name, source), root = made, tmp_path / "data"
    order = BENCHMARKS[name][1]
    shutil.copytree(source, root)
    changes = [f"{key}={value}" for key, value in SHORT.items()]
    config = short(name, "task-hom", root, "data.missing=drop", *changes)
    samples = Samples(config)
    samples.image(samples.samples(order[2], "train")[0]).unlink()
    done = fcit.run(config, tmp_path / "run").folder
    matrix = read_json(done / "matrix.json")
    assert matrix["stages"] == order
    last = matrix["matrix"][-1]
    assert len(last) == len(order) and all(0 <= value <= 100 for value in last)
    answers = done / "predictions" / str(len(order))
    assert {path.stem for path in answers.glob("*.jsonl")} == set(order)
    assert all(len(path.read_text().splitlines()) == 2 for path in answers.glob("*.jsonl"))
    assert list(read_json(done / "partition.json")["dropped"]) == [order[2]]
    monkeypatch.setattr(fcit.report.style, "to_svg", lambda figure: "<svg/>")
    monkeypatch.setattr(fcit.report.style, "save_png", lambda figure, path: path.touch())
    page = write([done], tmp_path / "report").read_text()
    assert all(f">{dataset}<" in page for dataset in order)


def test_the_recipes_have_the_hyper_parameters_they_name() -> None:
    paper = load(RECIPES / "paper" / "task-hom.toml")
    for name, (rank, batch) in {"ucit": (16, 64), "mllm-dcl": (32, 16)}.items():
        ours = load(RECIPES / name / "task-hom.toml")
        assert (ours.training, ours.federation) == (paper.training, paper.federation)
        assert ours.method.rank == paper.method.rank
        alone = load(RECIPES / name / "centralised.toml")
        assert (alone.method.name, alone.method.rank) == ("finetune", rank)
        assert (alone.training.batch_size, alone.training.lr) == (batch, 2e-4)
        federation = alone.federation
        assert (federation.clients, federation.per_round, federation.rounds) == (1, 1, 1)
