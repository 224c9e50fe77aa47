"""What `flwr run` starts: what cannot be private is refused before anything begins."""

from __future__ import annotations

import copy
import os
import time
from pathlib import Path

import pytest
import tomli_w

import fcit
from fcit.engines.local import LocalEngine
from fcit.files import write_json
from fcit.recipe.config import validate
from fcit.rounds.runfolder import RunFolder
from fcit.runs.session import Session
from fcit.types import FcitError
from fcit.watch import Silent

pytest.importorskip("flwr")

from fcit.aggregation import privacy
from fcit.flower.status import FILE, finished
from fcit.runs import flower_app


def given(table: dict, tmp_path: Path, **private: object) -> dict[str, str]:
    changed = copy.deepcopy(table) | {
        "privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0} | private
    }
    changed["federation"]["outlier_factor"] = 0
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(changed))
    return {"recipe": str(tmp_path / "recipe.toml"), "out": str(tmp_path / "run")}


def never(*_: object):
    raise AssertionError("an engine was built")


def test_noise_that_clients_could_subtract_is_refused(table: dict, tmp_path: Path) -> None:
    with pytest.raises(FcitError, match="privacy.seeded_noise"):
        flower_app.run(given(table, tmp_path), never)
    assert not (tmp_path / "run").exists()


def test_the_accountant_is_asked_for_before_the_first_answer(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking() -> None:
        raise FcitError("privacy: needs dp-accounting")

    monkeypatch.setattr(privacy, "require", lacking)
    with pytest.raises(FcitError, match="needs dp-accounting"):
        flower_app.run(given(table, tmp_path, seeded_noise=False), never)


def test_the_server_writes_down_no_share_of_data_that_it_does_not_have(
    table: dict, tmp_path: Path
) -> None:
    pytest.importorskip("dp_accounting")
    with pytest.raises(AssertionError, match="an engine was built"):
        flower_app.run(given(table, tmp_path, seeded_noise=False), never)
    assert not (tmp_path / "run" / "partition.json").exists()


def test_a_run_that_was_finished_before_is_finished_for_its_operator(
    table: dict, tmp_path: Path
) -> None:
    """`./run` looks at the run's status, which must be of this very attempt."""
    changed = copy.deepcopy(table) | {"method": {"name": "zeroshot"}}
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(changed))
    fcit.run(validate(changed), tmp_path / "run")
    file, begun = tmp_path / "run" / FILE, time.time()
    paths = {"recipe": str(tmp_path / "recipe.toml"), "out": str(tmp_path / "run")}
    for old in ({"now": "finished"}, {"now": "stage 2, round 1 of 1: training"}, None):
        file.unlink(missing_ok=True)
        if old:
            write_json(file, old)
            os.utime(file, (1e9, 1e9))
        assert not finished(tmp_path / "run", begun)
        flower_app.run(paths, never)
        assert finished(tmp_path / "run", begun)


def test_a_run_of_a_superlink_is_not_continued_with_the_servers_data(
    table: dict, tmp_path: Path
) -> None:
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(table))
    paths = {"recipe": str(tmp_path / "recipe.toml"), "out": str(tmp_path / "run")}
    with pytest.raises(AssertionError, match="an engine was built"):
        flower_app.run(paths, never)
    for resume in (True, False):
        with pytest.raises(FcitError, match=r"on their own data.*\./run federation\.min_clients=N"):
            fcit.run(validate(table), tmp_path / "run", resume)
    with pytest.raises(AssertionError, match="an engine was built"):
        flower_app.run(paths | {"changes": "federation.min_clients=1"}, never)
    assert not (tmp_path / "run" / "partition.json").exists()


def test_a_simulation_is_continued_here(table: dict, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(table))
    paths = {"recipe": str(tmp_path / "recipe.toml"), "out": str(tmp_path / "run")}
    with pytest.raises(AssertionError, match="an engine was built"):
        flower_app.run(paths, never, deployed=False)
    assert (tmp_path / "run" / "partition.json").is_file()
    Session(validate(table), tmp_path / "run", Silent()).open(resume=True)
    (tmp_path / "run" / "partition.json").unlink()  # an earlier version wrote none
    (tmp_path / "run" / "flower.txt").write_text("name\n")
    (tmp_path / "run" / "predictions").mkdir(exist_ok=True)
    with pytest.raises(AssertionError, match="an engine was built"):
        flower_app.run(paths, never, deployed=False)


def test_neither_is_one_that_an_earlier_version_began(table: dict, tmp_path: Path) -> None:
    config, run = validate(table), RunFolder(tmp_path / "run")
    Session(config, run.path, Silent()).begin()
    (run.path / "flower.txt").write_text("name\n")
    (run.path / "predictions").mkdir()
    with pytest.raises(FcitError, match="on their own data"):
        fcit.run(config, run.path, resume=True)
    run.write(run.partition, {})  # a simulation's
    Session(config, run.path, Silent()).open(resume=True)


def test_a_finished_run_of_a_superlink_is_evaluated_without_a_partition(
    table: dict, tmp_path: Path
) -> None:
    changed = copy.deepcopy(table) | {"method": {"name": "zeroshot"}}
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(changed))
    paths = {"recipe": str(tmp_path / "recipe.toml"), "out": str(tmp_path / "run")}
    flower_app.run(paths, lambda config, workers, folder: LocalEngine(config, workers))
    run = fcit.load(tmp_path / "run")
    assert not run.files.partition.exists()
    before = run.results
    Session(run.config, run.folder, Silent()).evaluate()
    assert fcit.load(run.folder).results == before
    assert not run.files.partition.exists()
