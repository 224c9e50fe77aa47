"""Sweeps: every run of the file once, checked before the first, gone on with after a stop."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import tomli_w

from commandline import COMMAND, call, refused
from fcit import methods
from fcit.files import locked, read_json, read_lines, write_json, write_text
from fcit.recipe.config import Config, load, to_table
from fcit.recipe.keys import flat
from fcit.rounds.runfolder import RunFolder
from fcit.runs import sweep
from fcit.types import FcitError

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def short(table: dict) -> dict:
    """A recipe of two stages of one round."""
    evaluation = {"limit": 4, "max_new_tokens": 4, "general_questions": 2}
    less = {"data": table["data"] | {"train": 16}, "evaluation": evaluation}
    return table | less | {"federation": table["federation"] | {"rounds": 1}}


def write(folder: Path, short: dict, *parts: dict, **top: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "short.toml", tomli_w.dumps(short))
    runs = [
        {"recipe": "short.toml", "methods": ["finetune"], "seeds": [0]} | one
        for one in parts or ({},)
    ]
    write_text(folder / "sweep.toml", tomli_w.dumps({"out": "runs", **top, "runs": runs}))
    return folder / "sweep.toml"


def test_a_file_says_which_runs_there_are(short: dict, tmp_path: Path) -> None:
    methods = ["zeroshot", "disco"]
    other = {"name": "hard", "methods": ["disco"], "set": ["method.gate=argmax"]}
    file = write(tmp_path, short, {"methods": methods, "seeds": [0, 1]}, other, set=["data.test=2"])
    runs = sweep.read(file)
    places = [str(run.folder.relative_to(tmp_path.resolve() / "runs")) for run in runs]
    assert places == [
        "short/zeroshot/seed0",
        "short/zeroshot/seed1",
        "short/disco/seed0",
        "short/disco/seed1",
        "hard/disco/seed0",
    ]
    assert runs[-1].changes == ("data.test=2", "method.gate=argmax", "seed=0")
    assert sweep.read(file, tmp_path / "else")[0].folder.is_relative_to(tmp_path.resolve() / "else")
    last = sweep.survey(runs)[-1]
    assert (last.config.seed, last.config.data.test) == (0, 2)
    assert last.config.method.gate == "argmax"
    assert not last.finished and last.position is None
    assert not (tmp_path / "runs").exists()


def test_a_grid_may_switch_something_on_and_off(short: dict, tmp_path: Path) -> None:
    grid = {"method.as_reference": [True, False]}
    runs = sweep.read(write(tmp_path, short, {"methods": ["disco"], "grid": grid}))
    assert [one.config.method.as_reference for one in sweep.survey(runs)] == [True, False]


def test_a_text_of_a_grid_stays_a_text(short: dict, tmp_path: Path) -> None:
    grid = {"tracking.project": ["7", "true", "mine"]}
    runs = sweep.read(write(tmp_path, short, {"methods": ["disco"], "grid": grid}))
    projects = [one.config.tracking.project for one in sweep.survey(runs)]
    assert projects == ["7", "true", "mine"]
    assert [run.name for run in runs] == [f"short-project{name}" for name in projects]


def test_a_grid_makes_a_run_for_every_combination(short: dict, tmp_path: Path) -> None:
    grid = {"training.lr": [1e-3, 0.5], "method.rank": [1, 8]}
    runs = sweep.read(write(tmp_path, short, {"methods": ["disco"], "grid": grid}))
    assert [(run.name, *run.changes) for run in runs] == [
        ("short-lr0.001-rank1", "training.lr=0.001", "method.rank=1", "seed=0"),
        ("short-lr0.001-rank8", "training.lr=0.001", "method.rank=8", "seed=0"),
        ("short-lr0.5-rank1", "training.lr=0.5", "method.rank=1", "seed=0"),
        ("short-lr0.5-rank8", "training.lr=0.5", "method.rank=8", "seed=0"),
    ]
    assert [one.config.method.rank for one in sweep.survey(runs)] == [1, 8, 1, 8]


def test_a_part_may_have_several_recipes(short: dict, tmp_path: Path) -> None:
    file = write(tmp_path, short, {"methods": ["disco"], "recipe": ["short.toml", "other.toml"]})
    assert [str(run) for run in sweep.read(file)] == ["short disco seed 0", "other disco seed 0"]
    named = write(tmp_path, short, {"name": "both", "recipe": ["short.toml", "other.toml"]})
    with pytest.raises(FcitError, match="both finetune seed 0 is there twice"):
        sweep.read(named)


def test_paths_in_changes_start_at_the_files_folder(short: dict, tmp_path: Path) -> None:
    (tmp_path / "here" / "photos").mkdir(parents=True)
    part = {"set": ['data.images=["photos", "../more"]', "model.path=a/hub-id"]}
    file = write(tmp_path / "here", short, part, set=["data.root=../data"])
    *changes, _ = sweep.read(file)[0].changes
    root = (tmp_path / "data").resolve()
    there = [str((tmp_path / "here" / "photos").resolve()), str((tmp_path / "more").resolve())]
    config = load(file.parent / "short.toml", changes)
    assert (config.data.root, list(config.data.images)) == (str(root), there)
    assert config.model.path == "a/hub-id", "a name that is no path stays one"


def keys(config: Config) -> dict[str, str]:
    return {key: str(value) for key, value in flat(to_table(config)).items()}


@pytest.mark.parametrize("name", ["comparison", "ablations", "tuning", "router"])
def test_the_shipped_sweeps_are_valid(name: str, tmp_path: Path) -> None:
    found = sweep.survey(sweep.read(RECIPES / "mini" / f"{name}.toml", tmp_path))
    assert {one.config.data.size for one in found} == {"tiny"}
    if name == "comparison":  # every method in four settings, three seeds; moelora once more
        assert [one.config.method.rank for one in found[-3:]] == [1, 1, 1]
        del found[-3:]
        asked = {
            (one.config.method.name, one.config.setting.name, one.config.seed) for one in found
        }
        settings = ("task-hom", "task-het", "cap-hom", "cap-het")
        assert asked == set(product(methods.names(), settings, (0, 1, 2)))
        assert len(asked) == len(found)
    if name == "ablations":  # one key apart from the run that they are compared with
        whole = sweep.survey(sweep.read(RECIPES / "mini" / "comparison.toml", tmp_path))
        usual = {
            one.config.method.name: keys(one.config)
            for one in whole[:-3]
            if (one.config.setting.name, one.config.seed) == ("task-hom", 0)
        }
        apart = [usual[one.config.method.name].items() ^ keys(one.config).items() for one in found]
        assert len(found) == 15
        assert all(len({key for key, _ in pairs}) == 1 for pairs in apart)
    if name == "tuning":  # nobody gets more than eight runs
        runs = Counter(one.config.method.name for one in found)
        assert runs.keys() == set(methods.names()) - {"zeroshot"}
        assert max(runs.values()) == 8
        assert {one.config.seed for one in found} == {100}


def test_names_and_methods_choose_runs(short: dict, tmp_path: Path) -> None:
    part = {"methods": ["zeroshot", "disco"]}
    runs = sweep.read(write(tmp_path, short, part, part | {"name": "b"}))
    assert sweep.choose(runs, []) == runs
    assert [str(run) for run in sweep.choose(runs, ["b"])] == [
        "b zeroshot seed 0",
        "b disco seed 0",
    ]
    assert [str(run) for run in sweep.choose(runs, ["b", "disco"])] == ["b disco seed 0"]
    with pytest.raises(FcitError, match="--only ewc: .*short, b, zeroshot, disco"):
        sweep.choose(runs, ["ewc"])
    part = {"name": "c", "methods": ["ewc"]}
    runs = sweep.read(write(tmp_path, short, {}, part))
    with pytest.raises(FcitError, match="--only: no run is of c and finetune together"):
        sweep.choose(runs, ["c", "finetune"])


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"recipe": "gone.toml"}, "gone.toml: no such recipe"),
        ({"methods": ["disko"]}, "disko"),
        ({"methods": []}, r"sweep\.toml: runs, no\. 2\.methods"),
        ({"grid": {"training.lr": []}}, r"sweep\.toml: runs, no\. 2\.grid"),
        ({"grid": {"training.lrr": [1.0]}}, "training.lrr"),
        ({"seed": [1]}, r"sweep\.toml: runs, no\. 2\.seed: unknown key"),
        ({"name": "../up"}, r"runs, no\. 2\.name: '\.\./up'"),
        ({"seeds": [1, 1]}, r"runs, no\. 2: short finetune seed 1 is there twice"),
        ({"set": ["method.gate=argmax"]}, "short finetune seed 0: .*no 'gate'"),
        ({"set": ["method.name=disco"]}, "give method.name and seed"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    part: dict, said: str, short: dict, tmp_path: Path
) -> None:
    file = write(tmp_path, short, {"methods": ["zeroshot"], "name": "good"}, part)
    with pytest.raises(FcitError, match=said):
        sweep.run(sweep.read(file))
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def swept(short: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of which one run fails: its client would train on prompts longer than may be."""
    file = write(
        tmp_path_factory.mktemp("sweep"),
        short,
        {},
        {"name": "bad", "set": ["training.max_length=2"]},
    )
    done = call("sweep", file, "--jobs", "2")
    assert done.returncode == 1, done.stderr
    assert "bad finetune seed 0: failed" in done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "1 of 2 runs are finished",
        f"the tables: fcit report {file.parent / 'runs'}",
    ]
    return file


def test_a_failing_run_does_not_stop_the_others(swept: Path) -> None:
    found = {str(one.run): one.finished for one in sweep.survey(sweep.read(swept))}
    assert found == {"short finetune seed 0": True, "bad finetune seed 0": False}
    good, bad = (swept.parent / "runs" / name / "finetune" for name in ("short", "bad"))
    assert "Last" in (good / "seed0.log").read_text()
    assert not (good / "seed0.log").stat().st_mode & 0o077
    clock = read_json(good / "seed0.seconds.json")
    assert clock["done"] and (clock["starts"], clock["jobs"]) == (1, 2) and clock["seconds"] > 0
    assert not read_json(bad / "seed0.seconds.json")["done"]


def test_what_is_finished_is_not_repeated(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("something was run"))
    (run,) = sweep.choose(sweep.read(swept), ["short"])
    assert sweep.run([run]) == []
    run.clock.unlink()  # as a run made by hand has none
    assert sweep.run([run]) == []
    assert (sweep.clock(run).starts, sweep.clock(run).whole) == (1, False)
    finished = sweep.survey([run])
    before = [replace(status, finished=False) for status in finished]
    monkeypatch.setattr("fcit.runs.sweep.processes.survey", lambda _: before)
    assert sweep.run([run]) == []  # another sweep finished it after this one had looked


def test_a_folder_of_another_recipe_is_refused(swept: Path, short: dict, tmp_path: Path) -> None:
    shutil.copytree(swept.parent / "runs" / "short", tmp_path / "runs" / "short")
    file = write(tmp_path, short, {"set": ["training.lr=1e-4"]})
    refused(call("sweep", file), "short finetune seed 0: ", "training.lr differs")


def test_a_run_of_other_questions_is_refused_and_a_renamed_folder_is_not(
    swept: Path, short: dict, tmp_path: Path
) -> None:
    shutil.copytree(swept.parent / "runs" / "short", tmp_path / "runs" / "short")
    (run,) = sweep.read(write(tmp_path, short))
    kept = RunFolder(run.folder)
    moved = kept.read(kept.partition) | {"data": str(tmp_path / "elsewhere")}
    kept.write(kept.partition, moved)
    assert sweep.survey([run])[0].finished
    rows = read_lines(kept.predictions("zero-shot", "IconQA"))
    kept.keep_answers("zero-shot", "IconQA", [row | {"truth": ["none"]} for row in rows])
    with pytest.raises(FcitError, match="other questions or truths"):
        sweep.run([run])
    kept.keep_answers("zero-shot", "IconQA", [row | {"prompt": "Who?"} for row in rows])
    with pytest.raises(FcitError, match=r"IconQA\.jsonl: answers other questions or truths"):
        sweep.run([run])


def test_a_run_that_another_process_works_on_is_left_alone(
    short: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep that was killed with SIGKILL leaves its runs going."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it was started"))
    (run,) = sweep.read(write(tmp_path, short))
    run.folder.mkdir(parents=True)
    from fcit.watch import Silent

    said: list[str] = []
    monkeypatch.setattr(Silent, "say", lambda self, text: said.append(text))
    with locked(run.folder, "run"):
        assert sweep.run([run]) == [run]
    assert said[-1] == "short finetune seed 0: another fcit is working on it; left alone"


def test_repeated_test_ids_are_told_before_the_first_run(
    short: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("something was run"))
    root = tmp_path / "data"
    shutil.copytree(short["data"]["root"], root)
    rows = read_json(root / "instructions" / "IconQA" / "val.json")
    for row in rows:  # whichever are drawn
        row["question_id"] = rows[0]["question_id"]
    write_json(root / "instructions" / "IconQA" / "val.json", rows)
    file = write(tmp_path, short | {"data": short["data"] | {"root": str(root)}})
    with pytest.raises(FcitError, match=r"IconQA: \d+ samples have the id"):
        sweep.run(sweep.read(file))


def test_a_dry_run_shows_how_far_runs_are(swept: Path) -> None:
    done = call("sweep", swept, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "finished" in done.stdout and "to do" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 of 2 runs are left"


def test_a_stopped_sweep_leaves_no_process_and_goes_on(short: dict, tmp_path: Path) -> None:
    long = short | {"federation": short["federation"] | {"rounds": 16}}  # not done before the stop
    file = write(tmp_path, long)
    (run,) = sweep.read(file)
    with subprocess.Popen(
        [*COMMAND, "sweep", str(file)], stderr=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + 120
        while RunFolder(run.folder).position() is None and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        try:
            _, said = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "the same command continues" in said
    stopped = sweep.survey([run])[0].position
    with locked(run.folder, "run"):  # nobody works on it any more
        assert stopped and not sweep.clock(run).done
    done = call("sweep", file)
    assert done.returncode == 0, done.stderr
    assert sweep.survey([run])[0].finished
    assert sweep.clock(run).starts == 2 and sweep.clock(run).done
    assert "continuing after stage" in run.log.read_text()


def test_each_gpu_gets_runs_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from fcit.recipe import config
    from fcit.runs.sweep import processes

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    some = config.validate({})
    assert processes._slots([some], 0) == ["0", "1"]
    assert processes._slots([some], 3) == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert processes._slots([some], 0) == ["4", "7"]
    on_cpu = config.validate({"model": {"device": "cpu"}, "training": {"threads": 1024}})
    assert processes._slots([some, on_cpu], 0) == [""]
    assert processes._slots([on_cpu], 3) == ["", "", ""]


def test_runs_that_name_gpus_or_need_several_come_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from fcit.recipe import config
    from fcit.runs.sweep import processes

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(processes, "cores", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def made(**model: str) -> config.Config:
        return config.validate({"model": model})

    spread, named, free, cpu = (
        made(device_map="auto"),
        made(device="cuda:1"),
        made(),
        made(device="cpu"),
    )
    for recipes in ([spread], [spread, free], [named], [named, free], [cpu, free], [cpu, spread]):
        assert processes._slots(recipes, 0) == [""]
    assert processes._slots([spread], 2) == ["", ""]
    assert processes._slots([cpu], 0) == [""] * 8
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert processes._slots([free], 0) == [""] * 8


def test_the_longest_run_comes_first_and_its_progress_is_known(short: dict, tmp_path: Path) -> None:
    from fcit.runs.sweep import processes
    from fcit.watch import Silent

    long = {"name": "long", "set": ["federation.rounds=3"]}
    file = write(tmp_path, short, {"methods": ["zeroshot", "finetune"]}, long)
    zero, one, three = processes._works(sweep.survey(sweep.read(file)), Silent())
    assert zero.left == 1 < one.left < three.left == three.total
    assert len(three.rounds) == 2 and len(three.rounds[0]) == 3
