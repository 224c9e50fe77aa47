"""A run folder is not believed: what was changed since it was written is named, whoever opens it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import fcit
import handmade
from fcit.files import read_json, write_json, write_text
from fcit.report.run_data import predictions, read_run
from fcit.runs.api import Run
from fcit.runs.provenance import scoring, versions
from fcit.runs.session import Session
from fcit.types import FcitError
from fcit.watch import Silent
from fcit.worker.experiment import Experiment


@pytest.fixture(scope="module")
def whole(table: dict, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of two stages of two rounds with all its files."""
    run = handmade.run(tmp_path_factory.mktemp("whole") / "run", table)
    facts = {"setting": "task-hom", "method": "disco", "scoring": "strict", "seed": 3}
    files, stages = run.files, {"stages": ["a", "b"], "last": 50.0, "avg": 50.0}
    files.write(files.matrix, files.read(files.matrix) | facts | stages)
    files.write(files.partition, {"data": "", "datasets": {"IconQA": [9, 9, 9, 9]}})
    answer = dict.fromkeys(("question_id", "prompt", "prediction", "truth"), "x")
    for stage in ("zero-shot", "2"):
        files.keep_answers(stage, "IconQA", [answer | {"score": 100.0}] * 3)
    return run


def resume(folder: Path, say: Callable[[str], None] = print) -> None:
    watch = Silent()
    watch.say = say
    fcit.run(fcit.load(folder).config, folder, resume=True, watch=watch)


def read_all(folder: Path) -> None:
    """Open a folder as every command does."""
    run = read_run(folder)
    assert len(predictions(run, "IconQA")) == 3
    assert fcit.load(folder).state.adapters
    resume(folder)


def edited(*keys: str | int, to: object) -> Callable[[str], str]:
    """Another value at a path of a JSON text."""

    def edit(text: str) -> str:
        *path, last = keys
        value = inner = json.loads(text)
        for key in path:
            inner = inner[key]
        inner[last] = to
        return json.dumps(value)

    return edit


def without(number: int) -> Callable[[str], str]:
    """A text without one of its lines."""

    def edit(text: str) -> str:
        lines = text.splitlines(keepends=True)
        del lines[number]
        return "".join(lines)

    return edit


def gone(text: str) -> None:
    return None


EDITS = {
    "a row of the matrix": ("matrix.json", edited("matrix", to=[[50.0, 50.0]])),
    "a number of the matrix": ("matrix.json", edited("matrix", 0, 0, to=51.0)),
    "Last": ("matrix.json", edited("last", to=99.0)),
    "no matrix": ("matrix.json", gone),
    "half a matrix": ("matrix.json", lambda text: text[:40]),
    "the first line of the log": ("log.jsonl", without(0)),
    "the last line of the log": ("log.jsonl", without(3)),
    "a task in the log": ("log.jsonl", lambda text: text.replace('"IconQA"', '"FigureQA"')),
    "no log": ("log.jsonl", gone),
    "a line that is a list": ("log.jsonl", lambda text: "[1]\n" + text),
    "round 99": ("state/state.json", edited("rounds", to=99)),
    "round -1": ("state/state.json", edited("rounds", to=-1)),
    "a round back": ("state/state.json", edited("rounds", to=1)),
    "rounds of text": ("state/state.json", edited("rounds", to="two")),
    "a state that is not there": ("state/state.json", edited("adapters", "0", to="../x")),
    "state.json is a list": ("state/state.json", lambda text: "[]"),
    "no position": ("state/state.json", gone),
    "another answer": ("predictions/zero-shot/IconQA.jsonl", without(1)),
    "an answer of the last stage": ("predictions/2/IconQA.jsonl", without(1)),
    "no digest of answers": ("predictions/2/IconQA.jsonl.sha256", gone),
    "another seed": ("config.toml", lambda text: text.replace("seed = 3", "seed = 4", 1)),
    "no digest of the config": ("config.toml", without(0)),
    "an empty config": ("config.toml", lambda text: ""),
    "a digest of answers": ("predictions/2/IconQA.jsonl.sha256", lambda text: text.upper()),
    "a client's samples": ("partition.json", edited("datasets", "IconQA", 0, to=8)),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_was_changed_is_named(name: str, whole: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "run"))
    file, edit = EDITS[name]
    text = edit((folder / file).read_text(encoding="utf-8"))
    if text is None:
        (folder / file).unlink()
    else:
        write_text(folder / file, text)
    named = "json" if name == "no position" else Path(file).name
    with pytest.raises(FcitError, match=named):
        read_all(folder)


@pytest.mark.parametrize("at", [100, -1])
@pytest.mark.parametrize("kind", ["adapters-0", "extras-projector", "extras-identity"])
def test_a_flipped_bit_in_a_tensor_is_seen(kind: str, at: int, whole: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "run"))
    (file,) = folder.glob(f"state/{kind}-*.safetensors")
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    with pytest.raises(FcitError, match=file.name):
        read_all(folder)


def test_what_was_not_changed_is_finished_and_stays_as_it_was(whole: Run) -> None:
    said: list[str] = []
    before = {file: file.read_bytes() for file in whole.folder.rglob("*") if file.is_file()}
    read_all(whole.folder)
    resume(whole.folder, said.append)
    assert said == [f"{whole.folder}: this run is already finished"]
    assert before == {file: file.read_bytes() for file in whole.folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("state/state.json", edited("rounds", to=99)),
        ("state/state.json", edited("rounds", to=-1)),
        ("state/state.json", edited("stage", to=7)),
        ("matrix.json", edited("matrix", to=[])),
        ("matrix.json", edited("matrix", to=[[50.0]])),
        ("log.jsonl", without(2)),
        ("log.jsonl", lambda text: text.replace('"tasks"', '"task"')),
        ("predictions/2/IconQA.jsonl", lambda text: text.replace('"prediction"', '"said"')),
    ],
)
def test_files_of_an_earlier_version_open_and_must_fit_each_other(
    file: str, edit: Callable[[str], str], whole: Run, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole.folder, tmp_path / "run"))
    config = (folder / "config.toml").read_text().splitlines(keepends=True)
    write_text(folder / "config.toml", "".join(config[1:]))
    for path in (folder / "matrix.json", folder / "state/state.json", folder / "partition.json"):
        write_json(path, {k: v for k, v in read_json(path).items() if k != "digest"})
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    lines = [json.dumps({k: v for k, v in row.items() if k != "digest"}) + "\n" for row in rows]
    write_text(folder / "log.jsonl", "".join(lines))
    for path in folder.rglob("*.sha256"):
        path.unlink()
    read_all(folder)
    write_text(folder / file, edit((folder / file).read_text()))
    with pytest.raises(FcitError, match=Path(file).name):
        read_all(folder)


def test_another_scoring_rule_is_another_run(whole: Run, table: dict, tmp_path: Path) -> None:
    rule = tmp_path / "rule.py"
    own = table | {"data": table["data"] | {"rules": {"IconQA": str(rule)}}}
    digests = set()
    for text in ("# one", "# two"):
        rule.write_text(text)
        digests.add(scoring(Experiment(fcit.recipe.config.validate(own))))
    assert len(digests) == 2
    with pytest.MonkeyPatch.context() as patch:
        then = versions(whole.experiment)
        patch.setattr("fcit.runs.provenance.scoring", lambda experiment: "another")
        Session(whole.config, whole.folder, Silent()).check(
            resume=True
        )  # it began before they counted
        folder = Path(shutil.copytree(whole.folder, tmp_path / "run"))
        table = whole.files.table() | {"versions": then}
        (run := Run(folder)).files.begin(table)
        with pytest.raises(FcitError, match="a dataset.toml changed since this run began"):
            Session(run.config, folder, Silent()).check(resume=True)
