"""What is asked besides the learnt datasets: those of the next stage, and the general questions."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

import fcit
from fcit.benchmark.datasets import Dataset
from fcit.benchmark.general import GENERAL
from fcit.engines.local import LocalEngine
from fcit.files import read_json, read_lines
from fcit.recipe.config import validate
from fcit.report.run_data import read_run
from fcit.rounds.runfolder import RunFolder
from fcit.rounds.server import Position
from fcit.runs.results import Results
from fcit.runs.session import Session
from fcit.types import Fault, FcitError, Job, State, Update
from fcit.watch import Silent
from fcit.worker.experiment import Experiment
from tools.mini_models import general


@pytest.fixture(scope="module")
def run(table: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = {"evaluation": table.get("evaluation", {}) | {"general_questions": 20}}
    config = validate(table | changes | {"method": {"name": "disco"}})
    return fcit.run(config, tmp_path_factory.mktemp("results") / "run").folder


@pytest.mark.parametrize(
    ("method", "setting", "memory", "epsilon"),
    [
        ("finetune", "task-hom", {}, 0.6189),
        ("finetune", "task-hom", {3: {"turn": torch.tensor([0, 1])}}, 1.8473),
        ("finetune", "task-het", {}, 1.8473),
        ("disco", "task-hom", {}, 1.8473),
        ("hide", "task-hom", {}, 1.8473),
    ],
)
def test_sampling_is_credited_only_where_nothing_tells_who_was_drawn(
    method: str, setting: str, memory: dict, epsilon: float, tmp_path: Path
) -> None:
    """The two numbers of docs/privacy.md."""
    pytest.importorskip("dp_accounting")
    config = validate(
        {
            "method": {"name": method},
            "setting": {"name": setting},
            "privacy": {"clip_norm": 1.0, "noise_multiplier": 8.0, "token_noise": 1.0},
            "federation": {"outlier_factor": 0},
        }
    )
    folder = RunFolder(tmp_path / "run")
    folder.commit(State(), Position(0, 10), memory)
    spent = Results(Experiment(config), folder, Silent())._spent()
    assert spent["epsilon_updates"] == epsilon
    assert (spent["epsilon_tokens"] > 0) == (method != "finetune")


def test_tokens_that_may_be_asked_for_again_are_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcit.runs.results.epsilon", lambda *given: {"tokens": given[3]})

    def counted(
        setting: str = "task-hom", at: Position | None = None, seeded: bool = False, **fields
    ) -> int:
        privacy = {"clip_norm": 1.0, "noise_multiplier": 8.0, "token_noise": 1.0}
        table = {
            "seed": 1,
            "setting": {"name": setting},
            "method": {"name": "disco", **fields},
            "privacy": privacy | {"seeded_noise": seeded},
            "federation": {"outlier_factor": 0},
        }
        folder = RunFolder(tmp_path / "-".join(map(str, ["run", seeded, *fields.values()])))
        folder.commit(State(), at or Position(0, 10), {})
        return Results(Experiment(validate(table)), folder, Silent())._spent()["tokens"]

    assert counted() == counted(max_subspaces=2) == 1
    assert counted(max_subspaces=2, at_limit="skip") > 1
    experiment = Experiment(validate({"seed": 1, "setting": {"name": "cap-het"}}))
    turns = [turn for stage in experiment.plan for turns in stage for turn in turns]
    end = Position(len(experiment.plan) - 1, len(experiment.plan[-1]), ended=True)
    tasks = Counter(client for client, _ in {(turn.client, turn.task.name) for turn in turns})
    again = Counter(
        client for client, *_ in {(turn.client, turn.task.name, turn.stage) for turn in turns}
    )
    assert max(again.values()) > max(tasks.values())  # tasks return, and their members are known
    assert counted("cap-het", end) == counted("cap-het", end, seeded=True) == max(tasks.values())
    assert counted("cap-het", end, name="hide") == max(again.values())
    assert counted("cap-het", end, seeded=True, name="hide") == max(tasks.values())  # the same bits


def right(run: Path, stage: str, dataset: str) -> float:
    rows = read_lines(run / "predictions" / stage / f"{dataset}.jsonl")
    return pytest.approx(sum(row["score"] for row in rows) / len(rows), abs=0.01)


def test_the_next_stages_dataset_is_asked_before_it_is_learned(run: Path) -> None:
    found = read_json(run / "matrix.json")
    first, second = found["datasets"]
    assert found["ahead"] == {second: right(run, "1", second)}
    assert found["matrix"][0][1] is None, "it is not seen yet, so it is not in the matrix"
    assert first not in found["ahead"], "before the first stage there is the base model alone"


def test_an_accuracy_whose_answers_are_gone_is_named(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    (name,) = read_json(folder / "matrix.json")["ahead"]
    (folder / "predictions" / "1" / f"{name}.jsonl").unlink()
    results = Results(Experiment(fcit.load(folder).config), RunFolder(folder), Silent())
    with pytest.raises(FcitError, match=f"1/{name}.jsonl: is missing"):
        results._ahead([[100.0, None], [100.0, 100.0]])


def test_general_questions_are_asked_before_and_after(run: Path) -> None:
    found = read_json(run / "matrix.json")["general"]
    assert found == {
        "before": right(run, "zero-shot", GENERAL),
        "after": right(run, "2", GENERAL),
    }
    assert found["before"] > 50, "the mini model has learned them"
    assert not (run / "predictions" / "1" / f"{GENERAL}.jsonl").exists()


def test_evaluating_again_asks_them_again(run: Path) -> None:
    before = read_json(run / "matrix.json")
    session = Session(fcit.load(run).config, run, Silent())
    session.evaluate()
    assert read_json(run / "matrix.json") == before


def test_a_row_that_another_device_computed_is_said_to_be(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    before = read_json(folder / "matrix.json")
    session = Session(fcit.load(folder).config, folder, Silent())
    session.evaluate("cpu:0")  # torch's name of the CPU; a run's own is `cpu` or a GPU's
    after = read_json(folder / "matrix.json")
    assert after["evaluated"].endswith(" on cpu:0")
    assert read_run(folder).evaluated == after["evaluated"]
    session.evaluate()
    assert read_json(folder / "matrix.json") == before and "evaluated" not in before


def test_neither_is_asked_where_the_recipe_says_so(table: dict, tmp_path: Path) -> None:
    quiet = table.get("evaluation", {}) | {"general_questions": 0, "forward_transfer": False}
    run = fcit.run(table | {"evaluation": quiet, "method": {"name": "finetune"}}, tmp_path / "run")
    found = run.results
    assert found["ahead"] == found["general"] == {}
    names = {path.name for path in (run.folder / "predictions" / "1").glob("*.jsonl")}
    assert names == {f"{found['datasets'][0]}.jsonl"}


def test_individual_is_not_asked_what_no_model_of_its_own_learnt(
    table: dict, tmp_path: Path
) -> None:
    run = fcit.run(
        table
        | {
            "evaluation": table.get("evaluation", {}) | {"general_questions": 5},
            "method": {"name": "individual"},
        },
        tmp_path / "run",
    )
    assert set(run.results["general"]) == {"before"}


def test_the_general_questions_are_the_same_every_time(tmp_path: Path) -> None:
    general.write(tmp_path / "a", 6)
    general.write(tmp_path / "b", 6)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    with pytest.raises(FcitError, match="a: already exists and is not empty"):
        general.write(tmp_path / "a", 7)
    with (
        patch.object(general, "write_json", side_effect=OSError(28, "No space left on device")),
        pytest.raises(FcitError, match="c: cannot be written: No space left on device"),
    ):
        (tmp_path / "c").mkdir()
        general.write(tmp_path / "c", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


@pytest.fixture(scope="module")
def faulty(table: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A heterogeneous run in whose first stage every client of one slot fails."""
    run = LocalEngine.run

    def failing(engine: LocalEngine, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
        bad = [job for job in jobs if (job.turn.stage, job.turn.task.name) == (0, "FigureQA")]
        yield from (Fault(job.turn.client, "crash", "its process ended") for job in bad)
        yield from run(engine, [job for job in jobs if job not in bad])

    slots = ["IconQA", "FigureQA"]
    changes = {
        "setting": {"name": "mine", "stages": [{"slots": slots}, {"slots": slots}]},
        "federation": table["federation"] | {"rounds": 1, "min_clients": 1},
        "evaluation": table["evaluation"] | {"general_questions": 0, "limit": 4},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalEngine, "run", failing)
        return fcit.run(table | changes, tmp_path_factory.mktemp("faulty") / "run").folder


def test_what_nobody_trained_on_is_not_seen_and_is_asked_ahead(faulty: Path) -> None:
    found = read_json(faulty / "matrix.json")
    (icon, figure), (last_icon, last_figure) = found["matrix"]
    assert figure is None and None not in (icon, last_icon, last_figure)
    assert found["ahead"] == {"FigureQA": right(faulty, "1", "FigureQA")}
    assert found["avg"] == pytest.approx((icon + (last_icon + last_figure) / 2) / 2, abs=1e-3)
    assert set(found["routing"]) == {"IconQA", "FigureQA"}


def test_a_dataset_without_a_subspace_is_routed_to_none(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(faulty, copy)
    first = [row for row in RunFolder(copy).rounds() if row.stage == 1]
    session = Session(fcit.load(copy).config, copy, Silent())
    matrix = session.folder.read(session.folder.matrix)
    monkeypatch.setattr(RunFolder, "rounds", lambda folder: first)
    assert session.results.seen(1) == ["IconQA"]
    found = session.results.write_matrix(matrix["zero_shot"], matrix["matrix"])
    assert found["routing"]["FigureQA"] == 0
    assert found["routing"]["IconQA"] == matrix["routing"]["IconQA"]


def test_answers_are_scored_once_however_often_the_matrix_is_written(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    score = Dataset.score
    monkeypatch.setattr(
        Dataset, "score", lambda self, *rest: [scored.append(self.name), score(self, *rest)][1]
    )
    results = Session(fcit.load(run).config, run, Silent()).results
    matrix = results.folder.read(results.folder.matrix)
    assert results.write_matrix(matrix["zero_shot"], matrix["matrix"]) == matrix
    assert scored.count(GENERAL) == 2, "before and after"
    scored.clear()
    assert results.write_matrix(matrix["zero_shot"], matrix["matrix"]) == matrix
    assert scored == []
