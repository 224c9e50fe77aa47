"""Schedule: who meets what, by golden draws; clients ascend and take the slots' tasks."""

from __future__ import annotations

from fcit.benchmark.schedule import plan
from fcit.benchmark.settings import setting
from fcit.types import Setting, Stage, Task


def test_reference_sampling_repeats_the_reference_draws():
    # RandomState(10 * stage + round).choice(50, 5, replace=False), a frozen stream
    rounds = plan(setting("task-hom"), seed=123, sampling="reference")
    assert [turn.client for turn in rounds[0][0]] == [2, 10, 11, 28, 41]
    others = (rounds[0][9], rounds[1][0], rounds[7][9])
    assert [[turn.client for turn in one] for one in others] == [
        [2, 14, 21, 37, 44],
        [23, 37, 42, 44, 47],
        [21, 39, 42, 44, 48],
    ]


def test_derived_sampling_golden():
    rounds = plan(setting("task-hom", clients=10, per_round=3, rounds=2), seed=0)
    assert [[turn.client for turn in one] for one in (*rounds[0], *rounds[1])] == [
        [0, 1, 5],
        [0, 5, 9],
        [2, 3, 8],
        [1, 2, 6],
    ]


def test_plan_has_every_stage_round_and_slot():
    for name, stages in (("task-hom", 8), ("task-het", 8), ("cap-hom", 4), ("cap-het", 4)):
        for sampling in ("derived", "reference"):
            found = plan(setting(name, rounds=3), 5, sampling)
            assert [len(stage) for stage in found] == [3] * stages
            for stage, rounds in enumerate(found):
                for number, turns in enumerate(rounds):
                    clients = [turn.client for turn in turns]
                    assert clients == sorted(set(clients))
                    assert len(clients) == 5
                    assert all(0 <= client < 50 for client in clients)
                    assert {(turn.stage, turn.round) for turn in turns} == {(stage, number)}


def test_heterogeneous_slots_take_their_tasks_in_order_of_client_ids():
    rounds = plan(setting("cap-het"), 0)
    assert [turn.task.name for turn in rounds[0][0]] == [
        "General", "Chart", "Chart", "Other", "Other",
    ]  # fmt: skip
    assert [turn.task.name for turn in rounds[3][9]] == ["General"] * 3 + ["Chart"] * 2
    assert rounds[1][0][4].task.datasets == ("Flickr30k", "OCR-VQA")


def test_every_client_of_a_homogeneous_stage_has_its_task():
    rounds = plan(setting("task-hom"), 0)
    assert {turn.task.name for one in rounds[4] for turn in one} == {"OCR-VQA"}


def test_plan_depends_on_the_seed_only_where_it_should():
    one = setting("task-hom")
    assert plan(one, 0) == plan(one, 0) != plan(one, 1)
    assert plan(one, 0, "reference") == plan(one, 1, "reference")


def test_derived_sampling_reaches_every_client_alike():
    one = setting("task-hom", clients=10, per_round=5)
    counts = [0] * 10
    for seed in range(20):
        for stage in plan(one, seed):
            for turns in stage:
                for turn in turns:
                    counts[turn.client] += 1
    assert sum(counts) == 20 * 8 * 10 * 5
    assert all(700 < count < 900 for count in counts)


def test_no_stages_make_no_plan_and_one_client_is_always_drawn():
    assert plan(Setting("zeroshot", ()), 0) == []
    alone = Setting("multitask", (Stage((Task("all", ("DVQA",)),)),), 1, 1, 2)
    assert [[turn.client for turn in one] for one in plan(alone, 0)[0]] == [[0], [0]]


def test_a_stage_has_its_own_rounds_and_samples_the_clients_that_are_there():
    a, b = Task("a", ("a",)), Task("b", ("b",))
    stages = (Stage((a,), 1, (0, 2, 5)), Stage((b, a)), Stage((a,), 4))
    own = Setting("own", stages, clients=6, per_round=2, rounds=3)
    for sampling in ("derived", "reference"):
        found = plan(own, 0, sampling)
        assert [len(rounds) for rounds in found] == [1, 3, 4]
        assert {turn.client for one in found[0] for turn in one} <= {0, 2, 5}
        assert [[turn.task.name for turn in one] for one in found[1]] == [["b", "a"]] * 3
        last = [[turns[0].last for turns in rounds] for rounds in found]
        assert last == [[True], [False, False, True], [False, False, False, True]]
    assert own.holders("a") == own.holders("b") == tuple(range(6))
    assert Setting("own", stages[:1], 6, 2).holders("a") == (0, 2, 5)
    assert list(plan(own, 0)[1]) == list(plan(Setting("all", stages[1:2] * 2, 6, 2, 3), 0)[1])
