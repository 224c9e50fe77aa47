"""Trackers get every round and stage once, also when a run is resumed, and never touch its numbers."""

from __future__ import annotations

import copy
import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import fcit
from fcit.files import read_json
from fcit.recipe.config import validate
from fcit.recipe.sections import TrackingSection
from fcit.rounds.runfolder import RunFolder
from fcit.runs import tracking
from fcit.runs.tracking import of_round, of_stage
from fcit.types import FcitError

TABLE = {"seed": 1, "method": {"name": "disco", "tau": 0.9}, "setting": {"order": ["a", "b"]}}


def needs(package: str) -> pytest.MarkDecorator:
    here = importlib.util.find_spec(package) and importlib.util.find_spec("accelerate")
    return pytest.mark.skipif(not here, reason=f"{package} is not installed (extra: tracking)")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def log_twice(name: str, folder: Path) -> None:
    """A round in one process's life, and the next one after a resume."""
    for step, loss in ((1, 0.5), (2, 0.25)):
        with tracking.tracking(TrackingSection(to=(name,)), folder, TABLE, pytest.fail) as log:
            log({"round/loss": loss, "accuracy/My Plants!": 50.5}, step)
        if name == "wandb" and step == 1:
            time.sleep(1.1)  # wandb names an offline session's folder by the second


# -- whole runs --------------------------------------------------------------------------------------


@needs("tensorboard")
def test_tensorboard_has_every_round_and_stage_once_though_the_run_was_cut_off(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = copy.deepcopy(table)
    table["evaluation"]["limit"] = 2
    plain = fcit.run(validate(table), tmp_path / "plain")
    assert not (plain.folder / "tracking").exists()

    tracked = validate(table | {"tracking": {"to": ["tensorboard"]}})
    folder = tmp_path / "tracked"
    commit, commits = RunFolder.commit, []

    def stopped(run: RunFolder, *rest) -> None:
        commits.append(rest)
        if len(commits) == 5:  # the second stage's second round is logged, but not committed
            raise KeyboardInterrupt
        commit(run, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "commit", stopped)
        fcit.run(tracked, folder)
    run = fcit.run(tracked, folder, resume=True)
    fcit.run(tracked, folder, resume=True)  # nothing left to do, and nothing to log
    fcit.run(validate(table), folder, resume=True)  # trackers make no other experiment

    assert results(run.folder) == results(plain.folder)
    found = scalars(folder / "tracking" / "tensorboard")
    log, matrix = (folder / "log.jsonl").read_text().splitlines(), run.results
    assert len(log) == 4
    for name in ("loss", "seconds", "bytes_down", "bytes_up", "subspaces"):
        assert [step for step, _ in found[f"round/{name}"]] == [1, 2, 3, 4], name
    assert all(value > 0 for _, value in found["round/bytes_up"] + found["round/loss"])
    first, last = matrix["matrix"]
    assert found["zero-shot/IconQA"] == [(0, near(matrix["zero_shot"]["IconQA"]))]
    assert found["accuracy/IconQA"] == [(2, near(first[0])), (4, near(last[0]))]
    assert found["accuracy/FigureQA"] == [(4, near(last[1]))]
    assert [step for step, _ in found["Avg"]] == [2, 4]
    assert found["Last"][-1] == (4, near(matrix["last"]))
    written = list(folder.rglob("hparams.yml"))
    assert len(written) == 1
    assert 'setting.order: \'["IconQA", "FigureQA"]\'' in written[0].read_text()


def near(value: float):
    return pytest.approx(value, rel=1e-6)


def results(folder: Path) -> dict[str, bytes]:
    files = [folder / "matrix.json", *sorted((folder / "state").iterdir())]
    return {file.name: file.read_bytes() for file in files}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Everything in a folder's event files: (step, value) by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(one.step, one.value) for one in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


# -- the others, without a run -----------------------------------------------------------------------


@needs("mlflow")
@pytest.mark.filterwarnings("default")  # of MLflow's own packages
def test_mlflow_keeps_one_run_in_the_run_folder(tmp_path: Path) -> None:
    log_twice("mlflow", tmp_path)
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'tracking' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fcit")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == tmp_path.name
    assert run.data.params == {
        "seed": "1",
        "method.name": "disco",
        "method.tau": "0.9",
        "setting.order": '["a", "b"]',
    }
    history = client.get_metric_history(run.info.run_id, "round/loss")
    assert [(one.step, one.value) for one in history] == [(1, 0.5), (2, 0.25)]
    assert run.data.metrics["accuracy/My Plants_"] == 50.5


@needs("wandb")
@pytest.mark.filterwarnings("default")  # of wandb's own packages
def test_wandb_stays_offline_and_goes_on_under_the_same_id(tmp_path: Path) -> None:
    log_twice("wandb", tmp_path)
    import wandb

    wandb.teardown()  # its service may still be writing; a process waits for it at its end
    key = read_json(tmp_path / "tracking" / "begun.json")["wandb"]
    files = sorted((tmp_path / "tracking" / "wandb").glob(f"offline-run-*-{key}/run-{key}.wandb"))
    assert len(files) == 2
    configs, history = zip(*map(recorded, files), strict=True)
    assert configs[0]["method.tau"] == "0.9"
    assert history[0] == [{"round/loss": "0.5", "accuracy/My Plants_": "50.5", "rounds": "1"}]
    assert history[1] == [{"round/loss": "0.25", "accuracy/My Plants_": "50.5", "rounds": "2"}]


def recorded(file: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The configuration and the history (as JSON by name) in a file of wandb's."""
    from wandb.proto.wandb_internal_pb2 import Record

    config, history = {}, []
    for data in entries(file.read_bytes()):
        record = Record.FromString(data)
        config |= named([*record.config.update, *record.run.config.update])
        if row := named(record.history.item):
            history.append({k: v for k, v in row.items() if not k.startswith("_")})
    return config, history


def named(items) -> dict[str, str]:
    return {one.key or "/".join(one.nested_key): one.value_json for one in items}


def entries(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: blocks of parts, each after 7 bytes of checksum, length
    and kind (1 whole, 2 first, 3 middle, 4 last); the file's own 7 bytes count to the first block."""
    block, at, whole = 32768, 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


# -- what goes wrong ---------------------------------------------------------------------------------


class Fake:
    """A tracker that fails from a step on."""

    def __init__(self, breaks: int = 99):
        self.breaks, self.seen, self.finished = breaks, [], False

    def store_init_configuration(self, values: dict) -> None:
        self.seen.append(values)

    def log(self, values: dict, step: int) -> None:
        if step >= self.breaks:
            raise ConnectionError("server is gone\nwith details")
        self.seen.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Fake, Fake]]:
    good, bad = Fake(), Fake(breaks=2)
    monkeypatch.setattr(tracking, "_tensorboard", lambda *_: (good, ""))
    monkeypatch.delenv(tracking.MLFLOW, raising=False)

    def mlflow(*_: object) -> tuple[Fake, str]:
        os.environ[tracking.MLFLOW] = "sqlite:///first.db"
        return bad, "id"

    monkeypatch.setattr(tracking, "_mlflow", mlflow)
    yield good, bad


@needs("accelerate")
def test_a_tracker_that_fails_is_let_go_and_the_others_go_on(fakes, tmp_path: Path) -> None:
    good, bad = fakes
    said: list[str] = []
    section = TrackingSection(to=("tensorboard", "mlflow"))
    with tracking.tracking(section, tmp_path, TABLE, said.append) as log:
        for step in (1, 2, 3):
            log({"round/loss": 1.0}, step)
    assert tracking.MLFLOW not in os.environ  # mlflow leaves its database's address there
    assert [one[0] for one in good.seen[1:]] == [1, 2, 3]
    assert [one[0] for one in bad.seen[1:]] == [1]
    assert good.finished and not bad.finished
    assert len(said) == 1
    assert said[0].endswith("mlflow failed, and the run goes on without it: server is gone")


@needs("accelerate")
def test_one_that_does_not_start_is_named_and_the_others_are_closed(
    fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_):
        raise RuntimeError("no such experiment")

    monkeypatch.setattr(tracking, "_mlflow", broken)
    section = TrackingSection(to=("tensorboard", "mlflow"))
    with (
        pytest.raises(FcitError, match="tracking.to: mlflow does not start: no such experiment"),
        tracking.tracking(section, tmp_path, TABLE, pytest.fail),
    ):
        pytest.fail("it started")
    assert fakes[0].finished
    assert read_json(tmp_path / "tracking" / "begun.json") == {"tensorboard": ""}


def test_a_missing_package_is_named_before_anything_is_written(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "wandb" else found(name)
    )
    config = validate(table | {"tracking": {"to": ["wandb"]}})
    with pytest.raises(FcitError, match=r"tracking\.to: wandb is not installed.*fcit\[tracking\]"):
        fcit.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"to": ["aim"]}, "tracking.to"),
        ({"to": ["wandb", "wandb"]}, "twice"),
        ({"project": ""}, "project"),
    ],
)
def test_a_section_without_meaning_is_refused(wrong: dict, said: str) -> None:
    with pytest.raises(FcitError, match=said):
        validate({"tracking": wrong})


def test_nothing_is_tracked_or_made_by_default(tmp_path: Path) -> None:
    with tracking.tracking(TrackingSection(), tmp_path, TABLE, pytest.fail) as log:
        log({"round/loss": 1.0}, 1)
    assert not list(tmp_path.iterdir())


def test_a_rounds_and_a_stages_numbers() -> None:
    row = {"losses": [1.0, 2.0], "seconds": 3.0, "bytes_down": [4, 5], "bytes_up": [6, 7]}
    assert of_round(row, 8) == {
        "round/loss": 1.5,
        "round/seconds": 3.0,
        "round/bytes_down": 9,
        "round/bytes_up": 13,
        "round/subspaces": 8,
    }
    matrix = {"datasets": ["a", "b"], "matrix": [[9.0, None]], "last": 9.0, "avg": 9.0}
    assert of_stage(matrix) == {"accuracy/a": 9.0, "Last": 9.0, "Avg": 9.0}
