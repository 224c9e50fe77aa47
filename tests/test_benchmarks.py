"""The benchmark script: its plan, and its verdicts on runs whose figures are known."""

from __future__ import annotations

import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

import handmade
from fcit import suite as mini
from fcit.rounds.runfolder import RunFolder
from fcit.runs.sweep import Clock
from fcit.types import FcitError

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import targets

    monkeypatch.setattr(targets, "TWELVE", 2)  # these runs have two datasets


def measured(method: str, last: float, seed: int = 0, setting: str = "task-hom", **more):
    from measures import Measured

    names = ("IconQA", "FigureQA")
    same = {"final": last, "chance": 30.0, "zero_shot": 20.0} | more
    fields = {key: dict.fromkeys(names, value) for key, value in same.items()}
    empty = {key: {} for key in ("learned", "forgetting") if key not in fields}
    clock = Clock(60.0, 1, 1, True)
    return Measured(setting, "tiny", method, seed, last, **fields, **empty, clock=clock)


def good() -> list:
    routes = {"routing": 95.0, "routing_seen": 99.0, "routing_unseen": 91.0}
    return [
        measured("zeroshot", 20.0),
        measured("finetune", 50.0, learned=79.0, forgetting=29.0),
        measured("disco", 70.0, learned=72.0, forgetting=2.0, **routes),
        measured("individual", 80.0),
        measured("multitask", 75.0),
    ]


def verdicts(found: list) -> dict[str, bool | None]:
    from measures import Runs
    from targets import targets

    figures = ("rank", "paraphrase")  # which are no targets
    return {
        one.demand: one.met
        for one in targets(Runs(found))
        if not any(word in one.demand for word in figures)
    }


def test_runs_as_they_should_be_pass_every_target() -> None:
    assert all(verdicts(good()).values())


@pytest.mark.parametrize(
    ("method", "change", "said"),
    [
        ("zeroshot", {"zero_shot": {"IconQA": 1.0}}, "zero-shot at least"),
        ("individual", {"chance": {"IconQA": 30.0, "FigureQA": 66.0}}, "on every dataset"),
        ("individual", {"final": {"IconQA": 74.0, "FigureQA": 74.0}}, "on average"),
        ("disco", {"learned": {"IconQA": 63.0}}, "of individual"),
        ("disco", {"last": 54.0}, "points over finetune"),
        ("disco", {"last": 76.0}, "under multitask"),
        ("finetune", {"last": 19.0}, "keeps something"),
        ("finetune", {"forgetting": {"IconQA": 9.0}}, "forgets at least"),
        ("finetune", {"clock": Clock(121.0, 1, 1, True)}, "minutes a method"),
    ],
)
def test_a_miss_is_a_failure(method: str, change: dict, said: str) -> None:
    found = [replace(one, **change) if one.method == method else one for one in good()]
    missed = [demand for demand, met in verdicts(found).items() if met is False]
    assert len(missed) == 1, missed
    assert said in missed[0]


def test_what_was_not_run_is_not_judged() -> None:
    found = verdicts([one for one in good() if one.method != "disco"])
    assert sum(met is None for met in found.values()) == 4
    assert False not in found.values()


def test_the_table_shows_mean_and_spread_over_seeds_and_every_dataset() -> None:
    from measures import Runs, datasets_table

    runs = Runs([*good(), measured("finetune", 54.0, 1, learned=79.0, forgetting=29.0)])
    table = datasets_table(runs, "task-hom", "tiny").splitlines()
    assert [line.split(" ")[1] for line in table[2:]] == ["IconQA", "FigureQA", "mean"]
    assert len({line.count("|") for line in table}) == 1
    assert all("| 52.0 ± 2.8 |" in line for line in table[2:])


def test_the_published_comparison_covers_every_method_that_ran() -> None:
    from measures import Runs
    from targets import targets

    runs = Runs([*good(), measured("olora", 60.0), measured("ewc", 55.0)])
    (ranks,) = (one for one in targets(runs) if "rank" in one.demand)
    assert ranks.figure == "1.00 over 6 methods (not a target)"


def test_rank_correlation() -> None:
    from measures import spearman

    assert spearman({"a": 1, "b": 2, "c": 3}, {"a": 10, "b": 20, "c": 30, "d": 0}) == (1.0, 3)
    assert spearman({"a": 1, "b": 2, "c": 3}, {"a": 3, "b": 2, "c": 1}) == (-1.0, 3)
    rho, _ = spearman({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "c": 3})
    assert rho == pytest.approx(0.866, abs=1e-3)


def test_a_wrong_folder_ends_in_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mini.py", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / "mini.py"), run_name="__main__")
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    assert said.err.startswith(f"mini.py: {tmp_path / 'none'}: is not a folder")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("rounds.py --times 0", "rounds.py: error: argument --times: 0 must be at least 1"),
        ("faults.py --count -5", "faults.py: error: argument --count: -5 must be at least 1"),
        ("memory.py --batch 0", "memory.py: error: argument --batch: 0 must be at least 1"),
        ("memory.py --hidden 1000", "memory.py: error: --hidden: must be a multiple of 64"),
        ("aggregation.py --updates 0", "argument --updates: 0 must be at least 1"),
        ("by_vllm.py run --python nowhere", "by_vllm.py: --python: nowhere is no program"),
        ("norms.py nowhere", "nowhere/config.toml: no such recipe"),
        ("norms.py", "norms.py: error: the following arguments are required: runs"),
    ],
)
def test_an_option_that_cannot_be_is_named_in_one_line(
    command: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / command.split()[0]), run_name="__main__")
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert told in said.err.splitlines()[-1] and "Traceback" not in said.err
    assert not said.out or command == "norms.py nowhere"  # whose table has begun


def test_a_script_ends_with_its_status_or_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import command

    monkeypatch.setattr(sys, "argv", ["here/cost.py"])
    with pytest.raises(SystemExit) as ended:
        command.ended(lambda: 1)
    assert (ended.value.code, capsys.readouterr().err) == (1, "")
    with pytest.raises(SystemExit) as ended:
        command.ended(lambda: (tmp_path / "none").touch() or (tmp_path / "none" / "a").touch())
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("cost.py: ") and "none/a" in said and said.count("\n") == 1


def test_a_process_that_fails_gives_its_last_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import command

    monkeypatch.setattr(sys, "argv", ["cost.py"])
    assert command.printed(["echo", "7"]) == "7\n"
    with pytest.raises(FcitError, match=r"^federation\.clients: 0$"):
        command.printed(["sh", "-c", "echo cost.py: federation.clients: 0 >&2; exit 2"])
    assert capfd.readouterr().err == ""
    with pytest.raises(FcitError, match=r"^KeyError: 'a'$"):
        command.printed(["sh", "-c", "echo 'Traceback:\nKeyError: '\"'a'\" >&2; exit 1"])
    assert capfd.readouterr().err == "Traceback:\n"
    with pytest.raises(FcitError, match="ended with status -9"):
        command.printed(["sh", "-c", "kill -9 $$"])


def test_a_run_without_answers_cannot_be_asked_again(tmp_path: Path) -> None:
    import by_vllm

    with pytest.raises(FcitError, match="has no predictions of a stage"):
        by_vllm.last(tmp_path)


@pytest.mark.parametrize("held", ['{"ewc": {"files": "0"}}', "[]", '{"disco": {}}'])
def test_digests_are_compared_with_a_whole_file(
    held: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tools import digests

    (tmp_path / "before.json").write_text(held)
    words = ["digests.py", "--only", "ewc", "--against", str(tmp_path / "before.json")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        digests.main()
    assert ended.value.code == 2
    assert "before.json lacks digests of ewc" in capsys.readouterr().err


@pytest.mark.parametrize("name", mini.GENERATORS)
def test_wordings_kept_for_the_test_are_told_from_the_others(name: str) -> None:
    from measures import is_unseen

    told = {
        split: [is_unseen(name, one.prompt) for one in mini.draws(0, name, split, 40)]
        for split in ("train", "test")
    }
    assert set(told["train"]) == {False}
    assert set(told["test"]) == {False, True}


def test_no_test_imports_a_script_by_a_name_that_a_folder_of_tests_has_too() -> None:
    """Which of the two it gets depends on the tests that ran before."""
    tests = Path(__file__).parent
    both = {path.stem for path in SCRIPTS.glob("*.py") if (tests / path.stem).is_dir()}
    assert both == {"aggregation", "rounds"}
    bare = re.compile(rf"^\s*(?:import|from) (?:{'|'.join(both)})(?: import|$)", re.MULTILINE)
    assert not [path for path in tests.rglob("*.py") if bare.search(path.read_text("utf-8"))]


def test_a_comparison_with_no_checkout_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import rounds  # tests/rounds has the bare name too

    monkeypatch.setattr(sys, "argv", ["rounds.py", "--against", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        rounds.main()
    assert ended.value.code == 2
    assert f"--against: {tmp_path} is no checkout of fcit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "share", "told"),
    [
        ([], 0.001, "--byzantine 0.001: is none of"),
        (["federation.wire=int8"], 0.5, "federation.wire = int8: attacks need float32"),
    ],
)
def test_an_attack_that_is_none_is_refused_before_its_run(
    changes: list[str], share: float, told: str, tmp_path: Path
) -> None:
    import attacks

    with pytest.raises(FcitError, match=told):
        attacks.measured(tmp_path / "run", changes, "finetune", share)
    assert not (tmp_path / "run").exists()


def test_norms_of_merged_adapters_are_shares_of_the_base_weights() -> None:
    import torch
    from norms import sizes

    one, two = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    weight = torch.full((2, 2), 5.0)  # norm 10
    pairs = [(one, one.T * 3), (two, two.T * 4)]
    found = sizes(pairs, weight, scale=2.0)
    assert found == pytest.approx({"one": 0.7, "sum": 1.0, "mean": 0.5, "factors": 1.414214})


def test_the_tuning_table_chooses_where_all_runs_are_finished(
    tmp_path: Path, table: dict, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tuned

    rows = [[50.0, 50.0], [50.0, 50.0]]
    for rate, last in ((1e-3, 40.0), (5e-3, 60.0)):
        changed = table | {"training": table["training"] | {"lr": rate}}
        run = RunFolder(tmp_path / f"recipe-lr{rate}" / "disco" / "seed3")
        handmade.run(run.path, changed)
        full = {"datasets": handmade.TASKS, "last": last, "avg": last / 2}
        run.write(run.matrix, full | {"matrix": rows})
    recipe, plan = tmp_path / "recipe.toml", tmp_path / "plan.toml"
    recipe.write_text(tomli_w.dumps(table))
    grid = {"training.lr": [1e-3, 5e-3]}
    part = {"recipe": str(recipe), "methods": ["disco"], "seeds": [3], "grid": grid}
    plan.write_text(tomli_w.dumps({"runs": [part]}))
    monkeypatch.setattr(sys, "argv", ["tuned.py", str(tmp_path), "--plan", str(plan)])
    with pytest.raises(SystemExit) as ended:
        tuned.main()
    assert not ended.value.code
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| disco | 2 | `training.lr = 0.005` | 60.00 | 30.00 |"
    assert lines[-2:] == [
        "| 0.001 | 40.00 | 20.00 |",
        "| 0.005 | **60.00** | 30.00 |",
    ]
    handmade.run(tmp_path / "recipe-lr0.5" / "disco" / "seed3", table)  # of another plan
    grid["training.lr"].append(1e-2)  # planned, and not begun
    plan.write_text(tomli_w.dumps({"runs": [part]}))
    with pytest.raises(SystemExit) as ended:
        tuned.main()
    assert ended.value.code
    assert "**disco**, 2 of 3 runs" in (said := capsys.readouterr().out)
    assert "| disco |" not in said and "**60.00**" not in said
    grid["training.lr"].pop()
    plan.write_text(tomli_w.dumps({"runs": [part]}))
    run.write(run.matrix, full | {"matrix": rows[:1]})
    with pytest.raises(SystemExit) as ended:
        tuned.main()
    assert ended.value.code
    assert "**disco**, 1 of 2 runs" in (said := capsys.readouterr().out)
    assert "| 0.001 | 40.00 | 20.00 |" in said and "**40.00**" not in said


def test_a_finished_runs_figures_are_read_with_its_routing(table: dict, tmp_path: Path) -> None:
    from measures import read

    table = table | {"data": {"size": "tiny"}}
    run = handmade.run(tmp_path / "run", table)
    seen = "How many stars are left when all circles are gone?"
    unseen = "Suppose you add two stars. How many stars are there?"
    row = {"truth": "7", "prediction": "7", "score": 100.0}
    rows = [
        row | {"question_id": str(at), "prompt": prompt, "activation": shares}
        for at, (prompt, shares) in enumerate(
            [(seen, {"0": 0.9, "1": 0.1}), (unseen, {"0": 0.2, "1": 0.8})]
        )
    ]
    run.files.keep_answers("2", "IconQA", rows)
    facts = run.files.read(run.files.matrix) | {
        "setting": "own", "method": "disco", "scoring": "strict", "seed": 3, "stages": ["1", "2"],
        "last": 50.0, "avg": 50.0, "zero_shot": {}, "chance": {}, "routing": {"IconQA": 50.0},
    }  # fmt: skip
    run.files.write(run.files.matrix, facts)
    (found,) = read([tmp_path]).all
    assert (found.method, found.seed, found.last) == ("disco", 3, 50.0)
    assert found.routing_seen == {"IconQA": 100.0}
    assert found.routing_unseen == {"IconQA": 0.0}


def test_a_run_of_another_suite_is_named_before_the_tables(table: dict, tmp_path: Path) -> None:
    from measures import read

    run = handmade.run(tmp_path / "run", table)  # on a data folder
    facts = {"setting": "own", "method": "disco", "scoring": "strict", "seed": 3, "last": 50.0}
    facts |= {"avg": 50.0, "zero_shot": {}, "chance": {}, "routing": {}, "stages": ["1", "2"]}
    run.files.write(run.files.matrix, run.files.read(run.files.matrix) | facts)
    with pytest.raises(FcitError, match="run: is no run of the mini suite"):
        read([tmp_path])
