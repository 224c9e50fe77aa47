"""A configuration's data: its folder in the cache, and how tasks are dealt to clients."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fcit.benchmark.partition import split
from fcit.benchmark.settings import GROUPS
from fcit.models import CHECKPOINTS
from fcit.models.identity import Encoder
from fcit.recipe.config import load, validate
from fcit.recipe.sections import SIZES
from fcit.rounds.client import identify
from fcit.types import FcitError, Sample
from fcit.worker.cache import cache_folder
from fcit.worker.experiment import Experiment

RECIPES = Path(__file__).parents[2] / "recipes" / "mini"


def root(**data) -> Path:
    return Experiment(validate({"data": data})).root


def test_sizes_and_counts_have_folders_of_their_own() -> None:
    assert root() == root(size="small")
    folders = [root(size=size) for size in SIZES]
    folders += [root(size="tiny", train=7), root(size="tiny", test=7)]
    assert len(set(folders)) == len(folders)
    assert all(folder.parent == cache_folder() for folder in folders)


def test_the_same_counts_are_the_same_data_whatever_the_size_is_called() -> None:
    train, test = SIZES["tiny"]
    assert root(size="full", train=train, test=test) == root(size="tiny")


def test_a_client_with_its_own_data_never_opens_the_servers_general_questions() -> None:
    config = validate(
        {"evaluation": {"general": "/nowhere/of-the-server"}, "data": {"root": "/nowhere"}}
    )
    with pytest.raises(FcitError, match="of-the-server"):
        _ = Experiment(config).folder.general
    assert Experiment(config, own=config.data).folder.general == {}


def test_a_run_of_a_size_reads_its_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fcit import suite as mini
    from fcit.watch import Silent

    made = []
    monkeypatch.setattr(mini, "write", lambda *given, **_: made.append(given))
    monkeypatch.setattr("fcit.benchmark.missing.missing", lambda *_: [])
    monkeypatch.setenv("FCIT_CACHE", str(tmp_path))
    experiment = Experiment(validate({"seed": 2, "data": {"size": "tiny", "test": 9}}))
    experiment.prepare(Silent())
    assert made == [(experiment.root, 2, SIZES["tiny"][0], 9)]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_image_is_named_with_its_sample_before_training(
    split: str, table: dict, suite: Path, tmp_path: Path
) -> None:
    shutil.copytree(suite, tmp_path / "data")
    source = table["data"] | {"root": str(tmp_path / "data"), "train": 0}
    experiment = Experiment(validate(table | {"data": source, "evaluation": {}}))
    experiment.check_images(train=True)
    sample = experiment.samples("FigureQA", split)[-1]
    image = experiment.data_of([sample]).images[0]
    image.rename(image.with_suffix(".PNG"))
    said = f"^FigureQA, sample {sample.id}: {image}: no such image; there is .*PNG; fcit data check"
    with pytest.raises(FcitError, match=said):
        experiment.check_images(train=True)
    if split == "train":  # a deployment's server does not train
        experiment.check_images(train=False)


def test_limits_keep_every_answers_share_of_a_file_in_class_order(tmp_path: Path) -> None:
    place = tmp_path / "instructions" / "IconQA"
    place.mkdir(parents=True)
    answers = ["star"] * 30 + ["heart"] * 20 + ["ball"] * 10
    rows = [{"image": "IconQA/a.png", "text": "?", "answer": answer} for answer in answers]
    (place / "val.json").write_text(json.dumps(rows))

    def asked(**table: dict) -> list[str]:
        table["data"] = {"root": str(tmp_path)} | table.get("data", {})
        return [one.answers[0] for one in Experiment(validate(table)).samples("IconQA", "test")]

    assert asked(data={"test": 6}) == ["star"] * 3 + ["heart"] * 2 + ["ball"]
    assert asked(data={"test": 30}, evaluation={"limit": 12}) == (
        ["star"] * 6 + ["heart"] * 4 + ["ball"] * 2
    )
    assert asked() == answers


SIZES_OF = {"A-OKVQA": 40, "IconQA": 50, "Grounding": 45, "ImageNet-R": 60}
SIZES_OF |= {"ArxivQA": 200, "FigureQA": 200, "DVQA": 200}


def made(part: str = "train", **setting) -> Experiment:
    """An experiment with ten clients on data that is only counted; every sample has an id of its own."""
    table = {"data": {"train": 0}, "setting": {"name": "cap-hom", "order": ["General", "Chart"]}}
    table |= {
        "setting": table["setting"] | setting,
        "federation": {"clients": 10, "min_samples": 4},
    }
    experiment = Experiment(validate(table))
    for name in experiment.setting.datasets:
        rows = [Sample(f"{name} {i}", name, "", "", ("",)) for i in range(SIZES_OF[name])]
        experiment.folder.known[name, part] = rows
    return experiment


def dealt(experiment: Experiment) -> dict[str, list[list[str]]]:
    """The ids of every client's samples, by task."""
    tasks = dict.fromkeys(task for stage in experiment.setting.stages for task in stage.tasks)
    return {
        task.name: [[sample.id for sample in share] for share in experiment.shares(task)]
        for task in tasks
    }


def test_a_tasks_datasets_are_pooled_and_dealt_by_one_draw() -> None:
    experiment = made()
    for task, names in (("General", list(SIZES_OF)[:4]), ("Chart", list(SIZES_OF)[4:])):
        pool = [f"{name} {i}" for name in names for i in range(SIZES_OF[name])]
        parts = split(len(pool), 10, 1.0, 0, ", ".join(names), minimum=4)
        assert dealt(experiment)[task] == [[pool[i] for i in part] for part in parts]
    for one in zip(*(experiment.counts(experiment.setting)[name] for name in names), strict=True):
        assert all(abs(count / sum(one) - 1 / 3) < 0.2 for count in one if sum(one) > 50)


def test_a_client_may_lack_a_dataset_of_its_task_but_not_all() -> None:
    counts = made(beta=0.2).counts(made().setting)
    general = list(zip(*(counts[name] for name in list(SIZES_OF)[:4]), strict=True))
    assert min(map(sum, general)) == 4 and 0 in min(general, key=sum)


def test_a_draw_for_each_dataset_is_an_option() -> None:
    experiment = made(split="per-dataset")
    shares = dealt(experiment)["General"]
    for name in list(SIZES_OF)[:4]:
        own = [[row for row in share if row.startswith(f"{name} ")] for share in shares]
        parts = split(SIZES_OF[name], 10, 1.0, 0, name, minimum=4)
        assert own == [[f"{name} {i}" for i in part] for part in parts]


def test_a_task_of_one_dataset_is_dealt_alike_by_both() -> None:
    task = {"name": "task-hom", "order": ["IconQA", "DVQA"]}
    assert dealt(made(**task)) == dealt(made(**task, split="per-dataset"))


def test_datasets_are_pooled_that_are_in_the_same_tasks() -> None:
    """IconQA is also a task of its own, for other clients: it is dealt alone, among all its clients."""
    setting = {
        "name": "mine",
        "order": [],
        "tasks": {
            "Questions": ["IconQA", "DVQA", "A-OKVQA"],
            "Again": ["DVQA", "A-OKVQA", "IconQA"],
        },
        "stages": [
            {"slots": ["Questions"], "clients": [0, 1, 2, 3, 4]},
            {"slots": ["Again"], "clients": 6},
            {"slots": ["IconQA"]},
        ],
    }
    experiment = made(**setting)
    of = experiment.setting.together
    assert of("DVQA") == of("A-OKVQA") == ("DVQA", "A-OKVQA") and of("IconQA") == ("IconQA",)
    shares = dealt(experiment)
    assert list(map(sorted, shares["Questions"])) == list(map(sorted, shares["Again"]))
    assert all(map(len, shares["IconQA"])) and not any(
        shares["Questions"][6][len(shares["IconQA"][6]) :]
    )
    rows = [row for share in shares["Questions"] for row in share]
    assert len(rows) == len(set(rows)) == 50 + 200 + 40


def test_a_clients_test_samples_are_dealt_as_its_training_samples_are() -> None:
    experiment = made("test")
    names = list(SIZES_OF)[4:]
    shares = {name: [experiment.test_share(name, client) for client in range(10)] for name in names}
    for name in names:
        assert sorted(row.id for share in shares[name] for row in share) == sorted(
            row.id for row in experiment.samples(name, "test")
        )
    for rows in zip(*shares.values(), strict=True):
        sizes = list(map(len, rows))
        assert all(abs(size / sum(sizes) - 1 / 3) < 0.2 for size in sizes if sum(sizes) > 50)


class ByDataset:
    """An encoder to which the prompts of a dataset are alike, and those of two datasets have nothing in
    common; here a prompt is its dataset's name."""

    def embed(self, kind: str, prompts: Sequence[str], images: Sequence[Path]) -> torch.Tensor:
        names = [name for names in GROUPS.values() for name in names]
        return torch.eye(len(names))[[names.index(prompt) for prompt in prompts]]


def opened(experiment: Experiment, encoder: ByDataset | Encoder) -> int:
    """How many subspaces the clients' tokens open in all stages; nobody is trained."""
    method = experiment.method
    state = method.start({}, {})
    for stage in experiment.plan:
        for turns in stage:
            asked = method.to_identify(state, turns)
            tokens = [identify(method, encoder, turn, experiment.data(turn)) for turn in asked]  # type: ignore[arg-type]
            state = method.organise(state, tokens)
    return len(state.adapters)


@pytest.mark.parametrize(
    ("name", "split", "subspaces"),
    [("cap-hom", "pooled", 4), ("cap-hom", "per-dataset", 14), ("task-hom", "pooled", 8)],
)
def test_every_task_opens_one_subspace(name: str, split: str, subspaces: int) -> None:
    recipe = RECIPES / f"{name}.toml"
    experiment = Experiment(load(recipe, ["data.size=tiny", f"setting.split={split}"]))
    for dataset in experiment.setting.datasets:
        experiment.folder.known[dataset, "train"] = [Sample("", dataset, "", dataset, ("",))] * 600
    assert opened(experiment, ByDataset()) == subspaces


@pytest.mark.slow
def test_every_task_of_the_mini_suite_opens_one_subspace(tmp_path: Path) -> None:
    from fcit import suite as mini

    mini.write(tmp_path / "mini", train=600, test=1)
    encoder = Encoder(CHECKPOINTS / "mini-clip")
    changes = [f"data.root={tmp_path / 'mini'}"]
    for name, subspaces in (("cap-hom", 4), ("task-hom", 8)):
        experiment = Experiment(load(RECIPES / f"{name}.toml", changes))
        assert opened(experiment, encoder) == subspaces
