"""The command line: help that is light, mistakes in one line with status 2, nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import tomli_w

from commandline import COMMAND, call, refused


@pytest.fixture(scope="module")
def recipe(table: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "short.toml"
    path.write_text(tomli_w.dumps(table))
    return path


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, fcit.cli; from typer.testing import CliRunner;"
        "found = CliRunner().invoke(fcit.cli.app, ['--help']); assert found.exit_code == 0;"
        "assert 'Federated' in found.output;"
        "heavy = {'torch', 'transformers', 'numpy', 'matplotlib', 'pydantic', 'PIL'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def process(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("stats --root gone", "gone: no such folder"),
        ("partition {} --out x.gif", "x.gif: a picture"),
    ],
)
def test_a_mistake_is_named_before_anything_is_read(
    words: str, said: str, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcit.worker.model", None)  # importing it fails
    monkeypatch.setattr("fcit.worker.experiment.Experiment.prepare", None)
    refused(call("data", *words.format(recipe).split()), said)


def test_the_version_is_the_packages() -> None:
    assert process("--version").stdout == f"fcit {version('fcit')}\n"


def test_a_process_ends_with_one_line_and_status_2_too() -> None:
    refused(process("run", "/nowhere/gone.toml"), "gone.toml", "no such recipe")


@pytest.mark.parametrize(
    "command", ["run", "evaluate", "score", "report", "export", "chat", "serve", "doctor", "data"]
)
def test_every_command_explains_itself(command: str) -> None:
    done = call(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout.split()) > 20


def test_doctor_lists_what_is_here() -> None:
    done = call("doctor")
    assert done.returncode == 0
    for part in ("python", "torch", "cores", "memory", "GPU", "Java", "disk"):
        assert part in done.stdout


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    refused(call("run", tmp_path / "gone.toml"), "gone.toml", "no such recipe")
    refused(call("evaluate", tmp_path / "gone"), "gone")
    refused(call("report", tmp_path / "gone"), "gone")
    refused(call("data", "check", tmp_path / "gone"), "gone")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.root=/nowhere/at/all", "/nowhere/at/all"),
        ("model.path=/nowhere/at/all", "model"),
        ("model.device=cuda:99", "cuda:99"),
        ('setting.order=["Nothing"]', "Nothing"),
        ("federation.min_samples=1000", "1000"),
        ("federation.deadline=-1", "deadline"),
        ("federation.sped=1", "federation.sped"),
    ],
)
def test_an_impossible_run_is_refused_and_can_be_mended_in_place(
    change: str, said: str, recipe: Path, tmp_path: Path
) -> None:
    refused(call("run", recipe, "--out", tmp_path / "run", "--set", change), said)
    assert not (tmp_path / "run" / "state").exists()
    assert not list(tmp_path.rglob("*.part"))


def test_a_loss_that_is_not_finite_names_client_stage_and_round(lmm, table: dict) -> None:
    import torch

    from fcit.methods.finetune import Finetune
    from fcit.recipe.config import validate
    from fcit.rounds.client import Data, Training, take_turn
    from fcit.seeds import torch_stream
    from fcit.types import FcitError, Job
    from fcit.worker.experiment import Experiment

    experiment, method = Experiment(validate(table)), Finetune()
    turn = experiment.plan[0][1][0]
    blank = lmm.subspaces.blank(8, 0.01, torch_stream(0, "x"))
    blank = {key: torch.full_like(value, float("nan")) for key, value in blank.items()}
    state = method.begin(method.start(blank, lmm.base_projector), experiment.setting.stages[0])
    job = Job(turn, method.send(state, turn))
    with pytest.raises(
        FcitError,
        match=rf"client {turn.client}, stage 1, round 2: the loss is nan .*training.lr and another --out",
    ):
        take_turn(job, method, lmm, experiment.data(turn), Training(batch_size=8), 0, {})
    with pytest.raises(FcitError, match="has no samples"):
        take_turn(job, method, lmm, Data([], []), Training(), 0, {})


def test_data_commands(recipe: Path, suite: Path, tmp_path: Path) -> None:
    made = call("data", "mini", tmp_path / "mini", "--train", "3", "--test", "2")
    assert made.returncode == 0, made.stderr
    good = call("data", "check", tmp_path / "mini")
    assert good.returncode == 0, good.stderr
    assert "IconQA: 3 train, 2 test" in good.stdout
    broken = next((tmp_path / "mini" / "datasets" / "IconQA").rglob("*.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    bad = call("data", "check", tmp_path / "mini")
    refused(bad, "problem")
    assert broken.name in bad.stdout
    refused(call("data", "mini", tmp_path / "mini"), "not empty")
    refused(call("data", "mini", tmp_path / "more", "--size", "huge"), "--size", "huge")
    shown = call("data", "partition", recipe, "--out", tmp_path / "p.svg")
    assert shown.returncode == 0, shown.stderr
    assert "FigureQA" in shown.stdout
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")


def test_a_table_is_imported_and_answers_to_it_scored(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    lines = ["image,question,answer"]
    for at in range(4):
        Image.new("RGB", (4, 4), (50 * at, 0, 0)).save(tmp_path / "photos" / f"{at}.png")
        lines.append(f"{at}.png,Which?,{at}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    words = ("data", "import", "Mine", "--images", tmp_path / "photos", "--out", tmp_path / "data")
    refused(call(*words), "--csv or --jsonl")
    made = call(*words, "--csv", tmp_path / "t.csv", "--test-share", "0.5")
    assert made.returncode == 0, made.stderr
    assert "Mine: 2 train, 2 test, 4 images" in made.stdout
    truth = tmp_path / "data" / "instructions" / "Mine" / "test.json"
    first, second = json.loads(truth.read_text())
    rows = [{"question_id": first["question_id"], "text": first["answer"] + "."}]
    said = tmp_path / "said.jsonl"
    said.write_text("\n".join(map(json.dumps, rows)))
    files = ("--truth", truth, "--predictions", said)
    refused(call("score", "--dataset", "Mine", *files), "no prediction for 1 of 2 questions")
    refused(call("score", "--dataset", "Mine", *files, "--mode", "kind"), "--mode': 'kind'")
    done = call("score", "--dataset", "Mine", *files, "--mode", "reference", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "score": 0.0, "samples": 1, "dataset": "Mine", "mode": "reference",
        "questions": 2, "missing": 1, "repeated": 0, "rule": "exact",
    }  # fmt: skip
    rows.append({"question_id": second["question_id"], "text": "none"})
    said.write_text("\n".join(map(json.dumps, rows)))
    done = call("score", "--dataset", "Mine", *files)
    assert "Mine: 50.00 % of 2 predictions (rule exact, strict scoring" in done.stdout


def test_data_stats_shows_what_a_folder_is_like(suite: Path) -> None:
    shown = call("data", "stats", "--root", suite)
    assert shown.returncode == 0, shown.stderr
    for part in ("IconQA", "chance", "new at test", "single word or phrase", "image token"):
        assert part in shown.stdout
    asked = call("data", "stats", "--root", suite, "--no-tokens", "--json")
    found = {row["dataset"]: row for row in json.loads(asked.stdout)}
    assert (len(found), found["IconQA"]["train"], found["IconQA"]["nearest"]) == (12, 40, {})
    for words, said in (
        (("--root", suite, "--size", "tiny"), "size = 'tiny'"),
        (("--root", suite, "--seed", "1"), "--seed"),
        (("--root", suite / "gone"), "gone"),
        (("--size", "huge"), "--size"),
        (("--root", suite, "--scoring", "kind"), "--scoring"),
    ):
        refused(call("data", "stats", *words), said)


def test_run_evaluate_report_one_after_another(recipe: Path, tmp_path: Path) -> None:
    for method in ("zeroshot", "disco"):
        done = call("run", recipe, "--method", method, "--out", tmp_path / method)
        assert done.returncode == 0, done.stderr
        assert "Last" in done.stdout
    matrix = (tmp_path / "disco" / "matrix.json").read_bytes()
    again = call("evaluate", tmp_path / "disco")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "disco" / "matrix.json").read_bytes() == matrix
    page = call("report", tmp_path / "zeroshot", tmp_path / "disco", "--out", tmp_path / "report")
    assert page.returncode == 0, page.stderr
    last = page.stdout.splitlines()[-1]
    assert last == str(tmp_path / "report" / "index.html")
    assert "<img" in Path(last).read_text() or "<svg" in Path(last).read_text()
