"""replay: clients train on a few of their old samples again; nothing is stored besides data and seed."""

from __future__ import annotations

import pytest

from fcit.methods.replay import Replay
from fcit.planning import estimates, plan
from fcit.recipe.config import validate
from fcit.types import Sample, Task, Turn
from fcit.worker.experiment import Experiment


def samples(dataset: str, count: int) -> list[Sample]:
    return [Sample(str(number), dataset, "", "", ("",)) for number in range(count)]


@pytest.fixture
def replaying(table: dict) -> dict:
    """Two stages of one round: clients 0 and 1, then clients 0 and 3."""
    federation = table["federation"] | {"rounds": 1}
    return table | {"method": {"name": "replay", "buffer": 3}, "federation": federation}


def test_a_client_keeps_a_few_samples_of_every_old_dataset_and_always_the_same() -> None:
    method, a, b = Replay(buffer=5), samples("a", 40), samples("b", 2)

    def kept(client: int, old: list[Sample], seed: int = 0) -> list[Sample]:
        return method.rehearsed(Turn(client, Task("c", ("c",)), 1, 0), old, seed)

    buffer = kept(1, a + b)
    assert [sample.dataset for sample in buffer] == ["a"] * 5 + ["b"] * 2
    assert len(set(buffer)) == 7
    assert kept(1, b + a) == b + buffer[:5] and kept(1, a + a) == buffer[:5]
    assert kept(2, a + b) != buffer != kept(1, a + b, seed=1)


def test_turns_take_samples_of_datasets_that_the_client_met_in_earlier_stages(
    replaying: dict,
) -> None:
    experiment = Experiment(validate(replaying))
    other = Experiment(validate(replaying | {"method": {"name": "lwf"}}))
    met = {turn.client for turns in experiment.plan[0] for turn in turns}
    later = {turn.client: turn for turns in experiment.plan[1] for turn in turns}
    assert met & later.keys() and later.keys() - met
    for client, turn in later.items():
        own = list(other.data(turn).samples)
        assert list(experiment.data(turn, replay=False).samples) == own
        data = experiment.data(turn)
        old, held = list(data.samples)[len(own) :], experiment.shares(experiment.plan[0][0][0].task)
        assert list(data.samples)[: len(own)] == own and len(data.images) == len(data.samples)
        assert len(old) == (3 if client in met else 0)
        assert set(old) <= set(held[client])
    for turn in (turn for turns in experiment.plan[0] for turn in turns):
        assert experiment.rehearsed(turn) == []


def test_the_samples_of_the_present_task_are_not_taken_twice(replaying: dict) -> None:
    again = {
        "name": "again",
        "tasks": {"both": ["IconQA", "FigureQA"], "icons": ["IconQA"]},
        "stages": [{"slots": ["both"]}, {"slots": ["icons"]}],
    }
    federation = replaying["federation"] | {"clients": 2}
    experiment = Experiment(validate(replaying | {"setting": again, "federation": federation}))
    for turn in experiment.plan[1][0]:
        assert {sample.dataset for sample in experiment.rehearsed(turn)} == {"FigureQA"}


def test_the_plan_counts_what_is_replayed(replaying: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "SMALL", 0)
    config = validate(replaying)
    experiment = Experiment(config)
    for stage, rounds in zip(plan(config).stages, experiment.plan, strict=True):
        turns = [turn for turns in rounds for turn in turns]
        assert stage.samples == sum(len(experiment.data(turn).samples) for turn in turns)
