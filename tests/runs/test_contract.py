"""What every method must do, on the mini model: train, learn, answer, and come back the same."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from statistics import fmean

import pytest

import fcit
from fcit import methods
from fcit.engines import wire
from fcit.engines.local import LocalEngine
from fcit.engines.workers import InProcessWorker
from fcit.files import read_json, read_lines
from fcit.planning import estimates, plan
from fcit.recipe.config import Config, validate
from fcit.rounds.runfolder import RunFolder
from fcit.rounds.server import Position
from fcit.types import Weights
from fcit.use.why import why
from fcit.weights import flatten, nbytes, to_bytes

TRAINED = [name for name in methods.names() if name != "zeroshot"]
REFERENCES = [name for name in methods.names() if methods.find(name).reference]
LEARNERS = [name for name in methods.names() if name not in REFERENCES]


def config(table: dict, name: str, /, **changes: dict) -> Config:
    table = copy.deepcopy(table) | {"method": {"name": name}}
    table["data"]["train"], table["federation"]["min_samples"] = 12, 2
    table["evaluation"] |= {"limit": 2, "general_questions": 1}
    for section, values in changes.items():
        table[section] = table.get(section, {}) | values
    return validate(table)


class Runs(dict[str, Path]):
    """Each method's run, made when a test first asks for it."""

    def __init__(self, table: dict, folder: Path):
        self.table, self.folder = table, folder

    def __missing__(self, name: str) -> Path:
        self[name] = fcit.run(config(self.table, name), self.folder / name).folder
        return self[name]


@pytest.fixture(scope="session")
def runs(table: dict, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(table, tmp_path_factory.mktemp("contract"))


@pytest.mark.parametrize("method", methods.names())
def test_a_run_folder_explains_itself(method: str, runs: dict[str, Path], table: dict) -> None:
    folder = runs[method]
    matrix = read_json(folder / "matrix.json")
    names = table["setting"]["order"]
    assert (matrix["method"], matrix["setting"], matrix["seed"]) == (method, "task-hom", 3)
    assert matrix["datasets"] == names
    assert set(matrix["zero_shot"]) == set(matrix["chance"]) == set(names)
    rows = 0 if method == "zeroshot" else 1 if method in REFERENCES else 2
    assert len(matrix["matrix"]) == rows
    assert list(matrix["forgetting"]) == (names[:1] if rows == 2 else [])
    if rows == 2:
        assert matrix["matrix"][0][1] is None
        assert None not in matrix["matrix"][1]
        stages = matrix["matrix"][0][0], fmean(matrix["matrix"][1])
    else:
        stages = (fmean(matrix["matrix"][0] if rows else matrix["zero_shot"].values()),)
    assert matrix["last"] == pytest.approx(stages[-1], abs=1e-3)
    assert matrix["avg"] == pytest.approx(fmean(stages), abs=1e-3)
    stage = "zero-shot" if method == "zeroshot" else str(rows)
    answers = read_lines(folder / "predictions" / stage / f"{names[0]}.jsonl")
    keys = {"question_id", "image", "prompt", "prediction", "truth", "score"}
    keys |= {"activation", "similarity"}
    assert len(answers) == 2
    assert all(set(row) == keys for row in answers)
    assert "versions" in (folder / "config.toml").read_text()


@pytest.mark.parametrize("method", TRAINED)
def test_training_changes_the_adapters_and_logs_every_round(
    method: str, runs: dict[str, Path]
) -> None:
    folder = RunFolder(runs[method])
    state, _ = folder.state()
    blank = state.extras.get("blank", {})
    assert state.adapters or "pool" in state.extras  # prompts are no adapters
    for weights in state.adapters.values():
        assert weights.keys() == blank.keys()
        moved = [key for key in blank if not weights[key].equal(blank[key])]
        assert {key for key in blank if ".lora_B." in key} <= set(moved)
    rounds = read_lines(folder.log)
    assert len(rounds) == {"multitask": 1, "individual_central": 2}.get(method, 4)
    for row in rounds:
        columns = ("clients", "tasks", "samples", "losses", "subspaces", "bytes_down", "bytes_up")
        assert {len(row[key]) for key in columns} == {len(row["clients"])}
        assert row["clients"] == sorted(row["clients"])
        assert row["seconds"] > 0


@pytest.mark.parametrize("method", LEARNERS)
def test_a_run_sends_what_was_planned(
    method: str, runs: dict[str, Path], table: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other optimizers, ranks and number formats: see tests/planning."""
    monkeypatch.setattr(estimates, "SMALL", 0)  # nothing is timed
    # how many directions fedprotip keeps depends on the data: the plan counts all that it may keep
    most = 1.5 if method == "fedprotip" else 1
    rows = read_lines(runs[method] / "log.jsonl")
    for number, stage in enumerate(plan(config(table, method)).stages, 1):
        mine = [row for row in rows if row["stage"] == number]
        assert stage.rounds == len(mine)
        assert stage.sampled == len({client for row in mine for client in row["clients"]})
        assert stage.samples == sum(sum(row["samples"]) for row in mine)
        for planned, key in ((stage.down_all, "bytes_down"), (stage.up_all, "bytes_up")):
            sent = sum(sum(row[key]) for row in mine)
            assert sent <= planned <= most * sent


@pytest.mark.parametrize("method", REFERENCES)
def test_the_same_run_gives_the_same_bits(
    method: str, runs: dict[str, Path], table: dict, tmp_path: Path
) -> None:
    again = fcit.run(config(table, method), tmp_path / "again").folder
    assert (again / "matrix.json").read_bytes() == (runs[method] / "matrix.json").read_bytes()
    assert states(again) == states(runs[method])


def states(folder: Path) -> dict[str, bytes]:
    return {
        file.name: file.read_bytes() for file in sorted((folder / "state").glob("*.safetensors"))
    }


@pytest.mark.parametrize("method", ["finetune", "disco"])
def test_any_number_of_workers_gives_the_same_bits(
    method: str, runs: dict[str, Path], table: dict, tmp_path: Path
) -> None:
    two = fcit.run(config(table, method, federation={"workers": 2}), tmp_path / "two").folder
    assert (two / "matrix.json").read_bytes() == (runs[method] / "matrix.json").read_bytes()
    assert states(two) == states(runs[method])


class WireWorker(InProcessWorker):
    """A worker in this process to which requests and replies go as bytes, as to a process."""

    def ask(self, header, weights=None, deadline=0.0):
        return by_wire(*super().ask(*by_wire(header, weights or {}), deadline))


def by_wire(header: wire.Header, weights: Weights) -> wire.Frame:
    stream = io.BytesIO()
    wire.write_frame(stream, header, weights)
    stream.seek(0)
    frame = wire.read_frame(stream)
    assert frame is not None
    return frame


@pytest.mark.parametrize("method", LEARNERS)
def test_a_run_by_wire_cut_off_three_times_has_the_same_bits(
    method: str,
    runs: dict[str, Path],
    table: dict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut off before a stage's end, after it, and in the next stage. Two workers that share no model get
    and give bytes all the time. They are in this process: two are started in the test above."""
    commit, folder = RunFolder.commit, tmp_path / "run"
    moments = [Position(0, 2, False), Position(0, 2, True), Position(1, 1, False)]

    def cut_off(self: RunFolder, state, position, memory=None) -> None:
        commit(self, state, position, memory)
        if position in moments:
            moments.remove(position)
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "commit", cut_off)
    monkeypatch.setattr(LocalEngine, "_start_worker", lambda self, _: WireWorker(self.config))
    by_two = config(table, method, federation={"workers": 2})
    for resume in (False, True, True):
        with pytest.raises(KeyboardInterrupt):
            fcit.run(by_two, folder, resume=resume)
    fcit.run(by_two, folder, resume=True)
    assert not moments
    assert (folder / "matrix.json").read_bytes() == (runs[method] / "matrix.json").read_bytes()
    assert states(folder) == states(runs[method])


def test_discos_clients_send_one_block_the_projector_and_once_their_token(
    runs: dict[str, Path],
) -> None:
    folder = RunFolder(runs["disco"])
    state, _ = folder.state()
    one = nbytes(state.adapters["0"]) + nbytes(state.extras["projector"])
    token = nbytes({"token": state.extras["identity"]["tokens"][0]})
    met: set[tuple[int, str]] = set()
    for row in read_lines(folder.log):
        for client, task, up, down in zip(
            row["clients"], row["tasks"], row["bytes_up"], row["bytes_down"], strict=True
        ):
            assert up == one + (0 if (client, task) in met else token)
            assert down == one
            met.add((client, task))


def test_disco_gives_every_dataset_its_own_subspace_and_leaves_the_old_alone(
    runs: dict[str, Path],
) -> None:
    rounds = read_lines(runs["disco"] / "log.jsonl")
    by_task = {task: set() for row in rounds for task in row["tasks"]}
    for row in rounds:
        for task, subspace in zip(row["tasks"], row["subspaces"], strict=True):
            by_task[task].add(subspace)
    assert len(set.union(*by_task.values())) == sum(len(part) for part in by_task.values())
    matrix = read_json(runs["disco"] / "matrix.json")
    assert min(matrix["routing"].values()) >= 90


@pytest.mark.parametrize("projector", ["isolated", "lora", "frozen"])
def test_projectors_may_be_isolated_or_frozen(projector: str, table: dict, tmp_path: Path) -> None:
    changed = config(table, "disco", method={"projector": projector})
    run = fcit.run(changed, tmp_path / projector)
    state, _ = RunFolder(run.folder).state()
    own = {name.split(".")[0] for name in state.adapters["0"]}
    assert ("projector" in own) == (projector != "frozen")
    assert "projector" not in state.extras
    if projector != "frozen":
        first, second = (
            {k: v for k, v in state.adapters[name].items() if k.startswith("projector.")}
            for name in ("0", "1")
        )
        assert any(not first[key].equal(second[key]) for key in first)


@pytest.mark.parametrize(
    "change",
    [{"gate": "argmax"}, {"gate": "concat"}, {"token": "both"}, {"router": "discriminant"}],
)
def test_the_ablations_run(change: dict, table: dict, tmp_path: Path) -> None:
    run = fcit.run(config(table, "disco", method=change), tmp_path / "run")
    rows = read_lines(run.folder / "predictions" / "2" / "IconQA.jsonl")
    shares = [sorted(row["activation"].values()) for row in rows]
    assert min(len(row) for row in shares) >= 2
    if change.get("gate") == "argmax":
        assert all(row == [*[0.0] * (len(row) - 1), 1.0] for row in shares)
    elif change.get("gate") == "concat":
        assert all(set(row) == {1.0} for row in shares)
        assert run.results["routing"] == {}
        found = why(run, "FigureQA")
        assert found.misrouted == 0 and not found.chosen
    else:
        assert all(sum(row) == pytest.approx(1, abs=1e-4) for row in shares)


def test_a_loaded_run_answers_as_it_did_in_evaluation(runs: dict[str, Path], suite: Path) -> None:
    rows = read_lines(runs["disco"] / "predictions" / "2" / "FigureQA.jsonl")
    run = fcit.load(runs["disco"])
    for row in rows[:3]:
        assert run.generate(suite / "datasets" / row["image"], row["prompt"]) == row["prediction"]


def test_the_state_on_disk_is_the_state(runs: dict[str, Path]) -> None:
    folder = RunFolder(runs["disco"])
    state, memory = folder.state()
    files = {file.name for file in folder.states.iterdir()}
    folder.commit(state, folder.position(), memory)
    assert {file.name for file in folder.states.iterdir()} == files
    assert to_bytes(flatten(folder.state()[0])) == to_bytes(flatten(state))
