"""kill -9 at any moment, and --resume ends in the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import tomli_w

import fcit
import zygote
from commandline import COMMAND, call
from fcit.engines.local import LocalEngine
from fcit.files import read_lines
from fcit.recipe import config as configs
from fcit.types import Fault, Job, Update
from fcit.worker.experiment import Experiment


def results(folder: Path) -> dict[str, bytes]:
    files = [folder / "matrix.json", *sorted((folder / "state").glob("*.safetensors"))]
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def recipe(table: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "short.toml"
    changed = json.loads(json.dumps(table))
    changed["federation"]["workers"] = 2
    path.write_text(tomli_w.dumps(changed))
    return path


@pytest.fixture(scope="module")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fcit.run(recipe, tmp_path_factory.mktemp("undisturbed") / "run").folder


ALONE = "federation.workers=1"
"""Goes on in this process: the bytes are those of the two workers before."""


def killed(recipe: Path, folder: Path, when: Callable[[], bool]) -> list[int]:
    """Start a run, kill -9 it as soon as `when()` holds, and return the ids of its workers."""
    process = subprocess.Popen(
        [*COMMAND, "run", str(recipe), "--out", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 200
    while not when() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    assert process.poll() is None, "the run ended before it could be killed"
    workers = workers_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return workers


def lines(folder: Path) -> int:
    log = folder / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


MOMENTS = {
    "before anything is committed": lambda run: (run / "config.toml").exists(),
    "in the first stage": lambda run: lines(run) == 1,
    "in the first evaluation": lambda run: (run / "predictions" / "1").exists(),
    "in the last round": lambda run: lines(run) == 3,
    "in the last evaluation": lambda run: (run / "predictions" / "2").exists(),
}
FAST = "in the first evaluation"


@pytest.mark.parametrize(
    "moment",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != FAST)) for name in MOMENTS],
)
def test_a_killed_run_ends_in_the_same_bytes(
    moment: str, recipe: Path, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    killed(recipe, folder, lambda: MOMENTS[moment](folder))
    done = call("run", recipe, "--out", folder, "--resume", "--set", ALONE)
    assert done.returncode == 0, done.stderr
    assert results(folder) == results(undisturbed)
    assert not list(folder.rglob("*.part"))
    rounds = [(row["stage"], row["round"]) for row in read_lines(folder / "log.jsonl")]
    assert rounds == [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.fixture(scope="module")
def cut(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A run whose server died as soon as a first reply was in its journal, and the ids of its workers."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    return folder, killed(
        recipe, folder, lambda: bool(list(folder.glob("journal/[0-9]*.safetensors")))
    )


def test_whoever_answered_before_a_kill_in_mid_round_does_not_train_again(
    recipe: Path,
    cut: tuple[Path, list[int]],
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(shutil.copytree(cut[0], tmp_path / "run"))
    answered = {int(path.stem) for path in folder.glob("journal/[0-9]*.safetensors")}
    plan = Experiment(configs.load(recipe)).plan[0][0]
    trained: list[tuple[int, int, int]] = []
    run = LocalEngine.run

    def counted(engine: LocalEngine, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
        trained.extend((job.turn.stage, job.turn.round, job.turn.client) for job in jobs)
        return run(engine, jobs)

    monkeypatch.setattr(LocalEngine, "run", counted)
    fcit.run(configs.load(recipe, [ALONE]), folder, resume=True)
    assert results(folder) == results(undisturbed)
    here = {client for stage, number, client in trained if (stage, number) == (0, 0)}
    assert here == {turn.client for turn in plan} - answered
    assert len(trained) == len(here) + 3 * 2
    assert not (folder / "journal").exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_no_worker_outlives_a_killed_server(cut: tuple[Path, list[int]]) -> None:
    assert len(cut[1]) == 2
    end = time.monotonic() + 60
    while (left := [worker for worker in cut[1] if lives(worker)]) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left


def workers_of(pid: int) -> list[int]:
    """Worker processes of a server: forked for the tests, or started (they keep its environment)."""
    server = str(pid)
    found = [
        child for child, asked in zygote.running() if asked["env"].get("FCIT_SERVER") == server
    ]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if b"fcit.engines.process" in command and f"FCIT_SERVER={pid}".encode() in environment:
            found.append(int(entry.name))
    return found


def lives(pid: int) -> bool:
    """Whether a process works on; one that has ended and that nobody has waited for does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_resuming_a_finished_run_changes_nothing(recipe: Path, undisturbed: Path) -> None:
    before = results(undisturbed)
    done = call("run", recipe, "--out", undisturbed, "--resume")
    assert done.returncode == 0, done.stderr
    assert results(undisturbed) == before


def test_a_folder_that_is_not_there_cannot_be_resumed(recipe: Path, tmp_path: Path) -> None:
    done = call("run", recipe, "--out", tmp_path / "gone", "--resume")
    assert done.returncode == 2
    assert "gone" in done.stderr
    assert not (tmp_path / "gone").exists()


def test_a_folder_without_state_starts_over(
    recipe: Path, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    done = call("run", recipe, "--out", folder, "--resume", "--set", ALONE)
    assert done.returncode == 0, done.stderr
    assert results(folder) == results(undisturbed)


def test_a_run_of_another_config_is_refused_and_untouched(recipe: Path, undisturbed: Path) -> None:
    before = results(undisturbed)
    done = call("run", recipe, "--out", undisturbed, "--resume", "--set", "method.tau=0.8")
    assert done.returncode == 2
    assert "method.tau" in done.stderr
    again = call("run", recipe, "--out", undisturbed)
    assert again.returncode == 2
    assert "already finished" in again.stderr
    assert results(undisturbed) == before


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_ends_in_one_line_and_can_be_resumed(
    workers: int, recipe: Path, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    changes = ["--set", f"federation.workers={workers}"]
    process = subprocess.Popen(
        [*COMMAND, "run", str(recipe), "--out", str(folder), *changes],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while lines(folder) < 1 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "--resume" in errors
    done = call("run", recipe, "--out", folder, "--resume", "--set", ALONE)
    assert done.returncode == 0, done.stderr
    assert results(folder) == results(undisturbed)
