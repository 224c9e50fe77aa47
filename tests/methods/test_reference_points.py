"""Reference points: their budgets, and the data that their clients hold."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from fcit.methods import find
from fcit.models import CHECKPOINTS
from fcit.models.size import model_size
from fcit.recipe.config import validate
from fcit.types import PROJECTOR, Setting, Turn
from fcit.weights import split_prefix
from fcit.worker.experiment import Experiment

STAGES = [
    {"slots": ["a"], "clients": 4, "rounds": 3},
    {"slots": ["b", "c"], "clients": [0, 2, 4]},
    {"slots": ["a", "c"]},
]
OWN = {
    "name": "own",
    "tasks": {"a": ["IconQA", "DVQA"], "b": ["FigureQA"], "c": ["DVQA", "TabMWP"]},
    "stages": STAGES,
}
SETTINGS = [{"name": f"{kind}-{mix}"} for kind in ("task", "cap") for mix in ("hom", "het")]


def experiment(method: str, setting: dict, suite: Path | None = None, **federation: int):
    table = {"method": {"name": method}, "setting": copy.deepcopy(setting)}
    sizes = {"clients": 6, "per_round": 2} if setting is OWN else {"clients": 10, "per_round": 5}
    table["federation"] = {"rounds": 2, "min_samples": 1, **sizes, **federation}
    if suite:
        table["data"] = {"root": str(suite)}
    return Experiment(validate(table))


def expected(setting: Setting) -> dict[str, float]:
    """How many times the clients of all turns are expected to train on a dataset's samples, where each
    client holds an equal part: counted turn by turn."""
    passes = dict.fromkeys(setting.datasets, 0.0)
    for stage in setting.stages:
        slots = stage.tasks * (setting.per_round // len(stage.tasks))
        for task in slots * setting.rounds_of(stage):
            for name in task.datasets:
                passes[name] += setting.epochs / len(setting.holders(name))
    return passes


@pytest.mark.parametrize("projector", ["shared", "isolated", "lora", "frozen"])
def test_individual_trains_of_a_projector_what_the_recipe_says(projector: str) -> None:
    size = model_size(CHECKPOINTS / "mini-lmm")
    whole = {name: torch.ones(shape) for name, shape in size.projector.items()}
    state = find("individual")(projector=projector).start(size.blank(8), whole)
    _, own = split_prefix(state.extras["blank"], PROJECTOR)
    assert state.projector is None
    numbers = sum(value.numel() for value in (own or {}).values())
    everything = sum(value.numel() for value in whole.values())
    if projector == "lora":
        assert 0 < numbers < everything / 2
    else:
        assert numbers == (0 if projector == "frozen" else everything)


@pytest.mark.parametrize("section", [*SETTINGS, OWN], ids=lambda section: section["name"])
def test_joint_has_the_turns_and_the_samples_of_a_continual_run(section: dict) -> None:
    joint = experiment("joint", section)
    continual, alone = joint.setting, joint.training_setting
    rounds = sum(map(continual.rounds_of, continual.stages))
    assert [len(stage) for stage in joint.plan] == [rounds]
    assert all(len(turns) == continual.per_round for turns in joint.plan[0])
    assert {turn.task.datasets for turns in joint.plan[0] for turn in turns} == {continual.datasets}
    then, now = expected(continual), expected(alone)
    assert sum(now.values()) == pytest.approx(sum(then.values()))
    if section["name"].endswith("-hom"):
        assert now == pytest.approx(then)
        assert alone.epochs == pytest.approx(1 / len(continual.stages))


def test_the_centralised_points_make_the_same_passes_and_at_least_one() -> None:
    for section, rounds, passes in ((SETTINGS[0], 5, 2.5), (SETTINGS[3], 5, 2.5), (OWN, 1, 1.0)):
        for method in ("multitask", "individual_central"):
            made = experiment(method, section, rounds=rounds)
            assert (made.training_setting.clients, made.method.federated) == (1, False)
            assert made.training_setting.epochs == pytest.approx(passes)
            stages = 1 if method == "multitask" else len(made.setting.datasets)
            assert [len(stage) for stage in made.plan] == [1] * stages


@pytest.mark.parametrize("section", [{"name": "cap-hom"}, OWN], ids=["cap-hom", "own"])
def test_clients_of_reference_points_hold_what_they_hold_in_the_setting(
    section: dict, suite: Path
) -> None:
    run, joint, alone = (
        experiment(name, section, suite) for name in ("disco", "joint", "individual")
    )
    tasks = [task for stage in run.setting.stages for task in stage.tasks]
    whole = joint.training_setting.stages[0].tasks[0]
    for client in range(run.setting.clients):
        held = joint.data(Turn(client, whole, 0, 0)).samples
        for name in run.setting.datasets:
            task = next(task for task in tasks if name in task.datasets)
            mine = [one for one in run.shares(task)[client] if one.dataset == name]
            assert [one for one in held if one.dataset == name] == mine
            own = next(s.tasks[0] for s in alone.training_setting.stages if s.datasets == (name,))
            if run.setting.together(name) == (name,):
                assert alone.shares(own)[client] == mine
            else:  # of a pool a client may have nothing in the setting
                assert alone.shares(own)[client]
    counts = joint.counts(joint.training_setting)
    assert {name: sum(counts[name]) for name in counts} == dict.fromkeys(run.setting.datasets, 40)
    central = experiment("individual_central", section, suite)
    assert [len(central.data(turns[0][0]).samples) for turns in central.plan] == [40] * len(counts)
