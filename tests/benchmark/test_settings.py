"""Settings: the stages of all four, spelled out, and what is refused."""

from __future__ import annotations

import pytest

from fcit.benchmark.datasets import DATASETS
from fcit.benchmark.settings import GROUPS, SETTINGS, TASK_ORDER, StageSpec, own, setting
from fcit.types import FcitError


def names(name: str) -> list[list[str]]:
    return [[one.name for one in stage.tasks] for stage in setting(name).stages]


def test_task_hom_is_the_eight_datasets_in_order():
    assert names("task-hom") == [
        ["ImageNet-R"], ["ArxivQA"], ["IconQA"], ["CLEVR-Math"],
        ["OCR-VQA"], ["Flickr30k"], ["FigureQA"], ["super-CLEVR"],
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a/b", "", ".hidden", "a\nb"])
def test_a_task_that_cannot_name_a_file_is_refused(name: str) -> None:
    with pytest.raises(FcitError, match=r"setting\.tasks: .* must be one plain name"):
        own("mine", {name: ["IconQA"]}, [StageSpec((name,))])


def test_task_het_follows_its_table():
    stages = names("task-het")
    published = (
        "12456", "34577", "02345", "00137", "12445", "03577", "22577", "55566",
    )  # fmt: skip
    order = [name for (name,) in names("task-hom")]
    assert stages == [[order[int(task)] for task in row] for row in published]


def test_cap_hom_and_cap_het_follow_the_groups():
    assert names("cap-hom") == [["General"], ["Chart"], ["Math"], ["Other"]]
    assert names("cap-het") == [
        ["General", "Chart", "Chart", "Other", "Other"],
        ["General", "Math", "Math", "Math", "Other"],
        ["Chart", "Math", "Math", "Other", "Other"],
        ["General", "General", "General", "Chart", "Chart"],
    ]
    stage = setting("cap-hom").stages[2]
    assert stage.tasks[0].datasets == ("CLEVR-Math", "super-CLEVR", "TabMWP")


def test_groups_hold_every_dataset_once():
    grouped = [name for group in GROUPS.values() for name in group]
    assert sorted(grouped) == sorted(DATASETS)
    assert set(TASK_ORDER) <= set(DATASETS)


def test_every_dataset_is_seen_when_it_should_be():
    het = setting("cap-het")
    assert set(het.seen(0)) == {name for g in ("General", "Chart", "Other") for name in GROUPS[g]}
    assert set(het.seen(3)) == set(DATASETS) == set(het.datasets)
    assert setting("task-hom").seen(1) == ("ImageNet-R", "ArxivQA")


def test_defaults_are_the_published_ones():
    one = setting("task-hom")
    assert (one.clients, one.per_round, one.rounds) == (50, 5, 10)
    assert list(SETTINGS) == ["task-hom", "task-het", "cap-hom", "cap-het"]


def test_order_can_be_chosen():
    few = setting("task-hom", 4, 2, 1, order=["DVQA", "IconQA"])
    assert [stage.datasets for stage in few.stages] == [("DVQA",), ("IconQA",)]
    caps = setting("cap-hom", order=("General", "Other", "Math", "Chart"))
    assert [stage.tasks[0].name for stage in caps.stages] == ["General", "Other", "Math", "Chart"]
    turned = setting("cap-het", order=("Other", "Math", "Chart", "General"))
    assert [one.name for one in turned.stages[0].tasks] == [
        "Other", "Math", "Math", "General", "General",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "task-hom", "order": ["a/b"]}, "must be that of a folder"),
        ({"name": "cap-hom", "order": ["DVQA"]}, "no capability group 'DVQA'"),
        ({"name": "task-hom", "order": ["DVQA", "DVQA"]}, "names a task twice"),
        ({"name": "task-het", "order": ["DVQA"]}, "needs 8 names"),
        ({"name": "cap-het", "per_round": 4}, "cap-het has 5 slots"),
        ({"name": "task-hom", "clients": 3, "per_round": 5}, "exceeds the 3 clients"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, said):
    with pytest.raises(FcitError, match=said):
        setting(**arguments)


def test_a_setting_of_ones_own_has_any_tasks_slots_arrivals_and_revisits():
    tasks = {"scans": ["My-Scans"], "lab": ["My-Sheets", "DVQA"]}
    stages = [
        StageSpec(("scans",), 3, (0, 1)),
        StageSpec(("lab", "Chart"), 0, (3, 2)),
        StageSpec(("scans", "DVQA")),
    ]
    found = own("clinic", tasks, stages, clients=4, per_round=2, rounds=5)
    assert [[task.datasets for task in stage.tasks] for stage in found.stages] == [
        [("My-Scans",)],
        [("My-Sheets", "DVQA"), GROUPS["Chart"]],
        [("My-Scans",), ("DVQA",)],
    ]
    assert [found.rounds_of(stage) for stage in found.stages] == [3, 5, 5]
    assert [found.pool(stage) for stage in found.stages] == [(0, 1), (2, 3), (0, 1, 2, 3)]
    assert found.datasets == ("My-Scans", "My-Sheets", "DVQA", "ArxivQA", "FigureQA")
    assert found.seen(0) == ("My-Scans",)
    assert found.seen(2) == found.seen(1)  # a task that comes again is no new dataset
    assert found.holders("My-Sheets") == (2, 3)
    assert found.holders("My-Scans") == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("tasks", "stage", "said"),
    [
        ({}, StageSpec(("Plants",)), "stage 2: no task 'Plants'; name it in"),
        ({"a": ["A"]}, StageSpec(("b",)), r"stage 2: no task 'b'; \[setting.tasks\] has a"),
        ({"a": []}, StageSpec(("a",)), "setting.tasks: a must name"),
        ({"a": ["A", "A"]}, StageSpec(("a",)), "setting.tasks: a must name"),
        ({"a": ["a/b"]}, StageSpec(("a",)), "must be that of a folder"),
        ({}, StageSpec(("DVQA", "DVQA")), "stage 2: 2 slots, but federation.per_round = 3"),
        ({}, StageSpec(("DVQA",), 0, (0, 1, 9)), "stage 2: client 9, but federation.clients = 5"),
        ({}, StageSpec(("DVQA",), 0, (0, 1)), "stage 2: 2 clients of 2 named"),
        ({}, StageSpec(("DVQA",), 0, (0, 1, 1)), "stage 2: 2 clients of 3 named"),
    ],
)
def test_what_does_not_fit_in_a_setting_of_ones_own_is_refused(tasks, stage, said):
    with pytest.raises(FcitError, match=said):
        own("mine", tasks, [StageSpec(("IconQA",)), stage], clients=5, per_round=3)
