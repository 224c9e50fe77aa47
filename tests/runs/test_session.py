"""One run from beginning to end, and what a session refuses to do to a folder."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import tomli_w
import torch
from safetensors.torch import load_file, save_file

import fcit
import handmade
from encoders import sentences
from fcit.benchmark.schedule import learners
from fcit.benchmark.settings import GROUPS
from fcit.files import ASIDE, locked, read_lines
from fcit.models import CHECKPOINTS
from fcit.models.chat import Chat
from fcit.recipe import config as configs
from fcit.recipe.config import validate
from fcit.rounds.journal import RunJournal
from fcit.rounds.runfolder import RunFolder
from fcit.rounds.server import Position
from fcit.runs import engine, provenance
from fcit.runs.api import Run
from fcit.runs.session import Session
from fcit.types import FcitError, State, Turn
from fcit.watch import Silent, Step
from fcit.worker.experiment import Experiment


class Cut(BaseException):
    """Stands for kill -9."""


class CutOff(Silent):
    """Ends the process at a step of the bar whose label holds `label`."""

    def __init__(self, label: str, at: int):
        self.label, self.at = label, at

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Step]:
        def step(done: float, text: str = "") -> None:
            if self.label in label and done >= self.at:
                raise Cut

        yield step


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its bytes and the time it was written."""
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def written(folder: Path) -> dict:
    """The configuration a run's folder says it was made with."""
    return configs.to_table(configs.load(folder / "config.toml"))


@pytest.fixture(scope="module")
def short(table: dict) -> dict:
    """Two stages of one round, two clients of few samples."""
    changed = copy.deepcopy(table)
    changed["data"]["train"] = 16
    changed["federation"]["rounds"] = 1
    changed["evaluation"] = {"limit": 4, "max_new_tokens": 4, "general_questions": 2}
    return changed


@pytest.fixture(scope="module")
def unfinished(short: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was cut off in its second stage."""
    folder = tmp_path_factory.mktemp("unfinished") / "run"
    with pytest.raises(Cut):
        fcit.run(validate(short), folder, watch=CutOff("clients' turns", 3))
    return folder


@pytest.fixture(scope="module")
def capable(table: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of the largest setting, made small."""
    changed = copy.deepcopy(table)
    changed["data"]["train"] = 8
    changed["setting"] = {"name": "cap-het"}
    changed["federation"] = {
        "clients": 5,
        "per_round": 5,
        "rounds": 1,
        "min_samples": 2,
        "workers": 1,
    }
    changed["evaluation"] = {"limit": 2, "max_new_tokens": 2, "general_questions": 2}
    return fcit.run(validate(changed), tmp_path_factory.mktemp("capable") / "run").folder


def test_an_unfinished_run_is_not_evaluated_and_stays_as_it_was(
    unfinished: Path, short: dict
) -> None:
    assert RunFolder(unfinished).position() == Position(0, 1, True)
    before = content(unfinished)
    with pytest.raises(FcitError, match="--resume"):
        Session(validate(short), unfinished, Silent()).evaluate()
    assert content(unfinished) == before


def test_an_unfinished_run_shows_the_rows_it_has(unfinished: Path) -> None:
    found = json.loads((unfinished / "matrix.json").read_text())
    assert len(found["matrix"]) == 1
    assert found["matrix"][0][0] is not None
    assert found["matrix"][0][1] is None
    assert found["datasets"] == ["IconQA", "FigureQA"]


def test_what_was_cut_off_goes_on_with_resume_alone(
    unfinished: Path, short: dict, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unfinished, folder)
    before = content(folder)
    with pytest.raises(FcitError, match="--resume"):
        Session(validate(short), folder, Silent()).open(resume=False)
    other = copy.deepcopy(short)
    other["training"]["lr"] = 1e-4
    with pytest.raises(FcitError, match="training.lr"):
        Session(validate(other), folder, Silent()).open(resume=True)
    assert content(folder) == before
    other = copy.deepcopy(short)
    other["federation"] |= {"workers": 2, "outlier_factor": 10.0}
    Session(validate(other), folder, Silent()).open(resume=True)  # speed, and who is rejected


def test_a_kill_after_the_last_commit_leaves_no_clients_updates_behind(
    unfinished: Path, short: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(unfinished, folder)

    def cut(journal: RunJournal) -> None:
        if journal.round == (1, 0):
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(RunJournal, "clear", cut)
        with pytest.raises(Cut):
            fcit.run(validate(short), folder, resume=True)
    assert RunFolder(folder).position() == Position(1, 1, False)
    assert list(folder.glob("journal/*.safetensors"))
    fcit.run(validate(short), folder, resume=True)
    assert not (folder / "journal").exists()


@pytest.mark.parametrize("deployed", [False, True])
def test_only_the_clients_of_a_deployment_alone_know_their_sample_counts(
    deployed: bool, short: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dealt: list[bool] = []
    monkeypatch.setattr(
        "fcit.runs.session.federate", lambda run, *_: iter(dealt.append(run.dealt) or ())
    )
    session = Session(validate(short), tmp_path / "run", Silent(), deployed=deployed)
    engine = SimpleNamespace(token_width=lambda: 4)
    session._federate(engine, State(), None, {}, [], lambda *_: None)  # type: ignore[arg-type]
    assert dealt == [not deployed]


def test_a_folder_with_nothing_but_an_aside_file_can_be_resumed(
    short: dict, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / f"{ASIDE}1-config.toml.part").write_text("seed = ")
    with pytest.raises(Cut):
        fcit.run(validate(short), folder, resume=True, watch=CutOff("zero-shot", 0))
    assert written(folder) == configs.to_table(validate(short))
    assert not list(folder.glob("*.part"))


def test_a_folder_of_something_else_is_left_alone(short: dict, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("chapter one")
    for resume in (False, True):
        with pytest.raises(FcitError, match="not a run folder"):
            Session(validate(short), tmp_path, Silent()).open(resume)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_that_committed_nothing_can_be_rerun_with_a_mended_config(
    short: dict, tmp_path: Path
) -> None:
    folder, empty = tmp_path / "run", tmp_path / "data"
    empty.mkdir()
    wrong = copy.deepcopy(short)
    wrong["data"]["root"] = str(empty)
    with pytest.raises(FcitError, match="lacks instructions/IconQA"):
        fcit.run(validate(wrong), folder)
    assert (folder / "config.toml").is_file()
    mended = copy.deepcopy(short)
    mended["method"] = {"name": "finetune"}
    with pytest.raises(Cut):
        fcit.run(validate(mended), folder, watch=CutOff("zero-shot", 0))
    assert written(folder) == configs.to_table(validate(mended))
    Session(validate(short), folder, Silent()).open(resume=False)
    assert written(folder) == configs.to_table(validate(short))


def test_an_encoder_that_cannot_make_the_tokens_is_refused_before_the_run_begins(
    short: dict, tmp_path: Path
) -> None:
    model = short.get("model", {}) | {"identity": str(sentences(tmp_path / "st"))}
    for token, refused in (("both", True), ("text", False)):
        table = short | {"model": model, "method": {"name": "disco", "token": token}}
        session = Session(validate(table), tmp_path / token, Silent())
        with pytest.raises(FcitError, match="no image tower") if refused else nullcontext():
            session.open(resume=False)
        assert (tmp_path / token).exists() is not refused


def test_a_finished_run_is_not_run_over(capable: Path) -> None:
    before = content(capable)
    with pytest.raises(FcitError, match="already finished"):
        fcit.run(configs.load(capable / "config.toml"), capable)
    assert content(capable) == before


def test_a_finished_run_evaluated_anew_has_the_same_row(capable: Path) -> None:
    before = (capable / "matrix.json").read_bytes()
    answers = capable / "predictions" / "4" / "DVQA.jsonl"
    said = answers.read_bytes()
    answers.write_text("")
    row = Session(fcit.load(capable).config, capable, Silent()).evaluate()
    assert (capable / "matrix.json").read_bytes() == before
    assert answers.read_bytes() == said
    assert row == json.loads(before)["matrix"][-1]


def test_a_run_of_another_mini_model_is_refused(
    unfinished: Path, short: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {"base": "another", "rules": ""}
    monkeypatch.setattr("fcit.runs.provenance.models", lambda experiment: digests)
    with pytest.raises(FcitError, match="mini model"):
        Session(validate(short), unfinished, Silent()).open(resume=True)


@pytest.mark.parametrize("key", ["model", "identity"])
def test_a_run_of_another_model_in_the_same_folder_is_refused(
    key: str, short: dict, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(CHECKPOINTS / {"model": "mini-lmm", "identity": "mini-clip"}[key], own)
    place = {"model": "path", "identity": "identity"}[key]
    config = validate(short | {"model": short.get("model", {}) | {place: str(own)}})
    session = Session(config, tmp_path / "run", Silent())
    session.begin()
    (tmp_path / "run" / "predictions").mkdir()  # its first answers
    session.check(resume=True)
    (own / "checkpoint-5").mkdir()
    for name in ("README.md", "notes.txt", "trainer_state.json", "checkpoint-5/config.json"):
        (own / name).write_text("not the model's")
    session.check(resume=True)
    weights = load_file(own / "model.safetensors")
    largest = max(weights, key=lambda name: weights[name].numel())
    save_file(weights | {largest: weights[largest] * 1.01}, own / "model.safetensors")
    said = f"model.{place} .*own.* is another model than when this run began"
    with pytest.raises(FcitError, match=said):
        session.check(resume=True)
    with pytest.raises(FcitError, match=said):
        Run(tmp_path / "run").load_worker(config)
    shutil.rmtree(own)  # what is not on this disk is not compared
    session.check(resume=True)
    with pytest.raises(FcitError, match=f"model.{place} differs"):  # before any model is blamed
        Session(validate(short), tmp_path / "run", Silent()).check(resume=True)


def test_of_a_large_file_parts_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("BLOCK", 10), ("APART", 100), ("WHOLE", 500)):
        monkeypatch.setattr(provenance, name, value)
    file = tmp_path / "model.safetensors"
    found = []
    for changed in (None, 50, 105, 905, slice(300, 420)):  # 50 lies between two blocks
        data = bytearray(1000)
        if changed is not None:
            spot = changed if isinstance(changed, slice) else slice(changed, changed + 1)
            data[spot] = b"x" * (spot.stop - spot.start)
        file.write_bytes(data)
        os.utime(file, ns=(0, len(found)))
        found.append(provenance._folder(tmp_path))
    assert found[0] == found[1]
    assert len({*found}) == 4


def test_a_folder_that_another_run_has_just_begun_is_left_as_it_is(
    short: dict, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    Session(validate(short), folder, Silent()).open(resume=False)
    begun = (folder / "config.toml").read_bytes()
    other = validate(short | {"federation": short["federation"] | {"rounds": 7}})
    with locked(folder, "run"), pytest.raises(FcitError, match="another fcit is working on this"):
        Session(other, folder, Silent()).open(resume=False)
    assert (folder / "config.toml").read_bytes() == begun


def test_a_folder_whose_beginning_failed_can_be_begun_again(
    short: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(validate(short), tmp_path / "run", Silent())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fcit.runs.provenance.versions", full)
        with pytest.raises(OSError, match="No space"):
            session.open(resume=False)
    session.open(resume=False)
    assert (tmp_path / "run" / "config.toml").is_file()


def test_the_state_is_read_while_no_other_process_can_write_it(
    unfinished: Path, short: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits for the data must not go on with the state of before."""

    def state(folder: RunFolder) -> None:
        with locked(folder.path, "run"):
            raise AssertionError("the folder was not locked")

    monkeypatch.setattr(RunFolder, "state", state)
    with pytest.raises(FcitError, match="another fcit is working on this run"):
        Session(validate(short), unfinished, Silent()).run()


def test_going_on_in_another_number_format_is_said(
    unfinished: Path, short: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Said(Silent):
        lines: ClassVar[list[str]] = []

        def say(self, text: str) -> None:
            self.lines.append(text)
            if "begun in" in text:
                raise Cut

    monkeypatch.setattr("fcit.runs.provenance.computed", lambda model: "float16 on mars")
    with pytest.raises(Cut):
        fcit.run(short, unfinished, resume=True, watch=Said())
    assert re.match("continuing in float16 on mars, begun in .*float.* on cpu", Said.lines[-1])


def test_going_on_with_another_file_of_the_method_is_said(
    short: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment(validate(short))
    then = provenance.versions(experiment)
    assert not list(provenance.changes(then, experiment))
    earlier = {key: value for key, value in then.items() if key != "method_file"}
    assert not list(provenance.changes(earlier, experiment))
    monkeypatch.setattr(provenance, "method_file", lambda _: "0123456789ab")
    (told,) = provenance.changes(then, experiment)
    name = short["method"]["name"]
    assert told.startswith(f"the file of the method {name} has changed since this run began")


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_file_that_is_not_in_the_commit_makes_it_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # of a hook: they name another repository
    here = tmp_path / "src" / "fcit" / "runs" / "provenance.py"
    here.parent.mkdir(parents=True)
    here.write_text("")
    for words in (
        ("init", "-q"),
        ("add", "."),
        ("commit", "-qm", "one"),
    ):
        mine = ("user.name=a", "user.email=a@b", "commit.gpgsign=false", "core.hooksPath=/dev/null")
        options = [word for key in mine for word in ("-c", key)]
        subprocess.run(["git", "-C", str(tmp_path), *options, *words], check=True)
    monkeypatch.setattr(provenance, "__file__", str(here))
    commit = provenance._commit.__wrapped__
    assert re.fullmatch("[0-9a-f]{12}", clean := commit())
    (tmp_path / "notes.md").write_text("beside the source\n")
    assert commit() == clean
    (here.parent / "atlas.py").write_text("")
    assert commit() == f"{clean}-dirty"
    here.write_text("changed\n")
    assert commit() == f"{clean}-dirty"


def test_a_relative_root_starts_at_the_current_folder(
    suite: Path, short: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipes" / "short.toml"
    recipe.parent.mkdir()
    recipe.write_text(tomli_w.dumps(short))
    monkeypatch.chdir(suite.parent)
    loaded = configs.load(recipe, [f"data.root={suite.name}"])
    assert Path(loaded.data.root) == suite.resolve()
    Session(loaded, tmp_path / "run", Silent()).open(resume=False)
    monkeypatch.chdir(tmp_path)
    assert Path(fcit.load(tmp_path / "run").config.data.root) == suite.resolve()


def test_a_relative_root_in_a_recipe_starts_at_the_recipe(
    suite: Path, short: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = suite.parent / "short.toml"
    recipe.write_text(tomli_w.dumps(short | {"data": {"root": suite.name}}))
    monkeypatch.chdir(tmp_path)
    assert Path(configs.load(recipe).data.root) == suite.resolve()


# -- a whole run ---------------------------------------------------------------------------------


def test_every_stage_has_its_row_over_the_datasets_seen(capable: Path) -> None:
    found = fcit.load(capable).results
    order = ["General", "Chart", "Other", "Math"]  # of first appearance in the slots' table
    assert found["datasets"] == [name for group in order for name in GROUPS[group]]
    rows = found["matrix"]
    assert [sum(value is not None for value in row) for row in rows] == [9, 12, 12, 12]
    assert rows[0][9:] == [None] * 3
    assert all(0 <= value <= 100 for row in rows for value in row if value is not None)
    assert found["last"] == pytest.approx(sum(rows[-1]) / 12, abs=1e-3)
    means = [sum(row[:count]) / count for row, count in zip(rows, (9, 12, 12, 12), strict=True)]
    assert found["avg"] == pytest.approx(sum(means) / 4, abs=1e-3)
    assert list(found["zero_shot"]) == found["datasets"]


def test_a_client_is_asked_for_one_token_a_task_it_meets(capable: Path) -> None:
    met: set[str] = set()
    for row in read_lines(capable / "log.jsonl"):
        assert row["clients"] == [0, 1, 2, 3, 4]
        keys = [
            f"{client}/{task}" for client, task in zip(row["clients"], row["tasks"], strict=True)
        ]
        assert [count > 0 for count in row["bytes_token"]] == [key not in met for key in keys]
        met |= set(keys)
    state, _ = RunFolder(capable).state()
    assert state.extras["members"].keys() == met
    assert {key for key in met if key.startswith("0/")} == {"0/General", "0/Chart"}
    samples = state.extras["identity"]["samples"]
    assert len(samples) == len(state.adapters) > 1
    shares = json.loads((capable / "partition.json").read_text())["datasets"]
    held = sum(
        shares[name][int(client)]
        for client, task in (key.split("/") for key in met)
        for name in GROUPS[task]
    )
    assert int(samples.sum()) == held


def test_every_answer_is_kept_with_its_shares_and_cosines(capable: Path) -> None:
    state, _ = RunFolder(capable).state()
    for name in fcit.load(capable).results["datasets"]:
        rows = read_lines(capable / "predictions" / "4" / f"{name}.jsonl")
        assert len(rows) == 2
        for row in rows:
            assert row["activation"].keys() == row["similarity"].keys() == state.adapters.keys()
            assert all(-1 <= cosine <= 1 for cosine in row["similarity"].values())
            assert sum(row["activation"].values()) == pytest.approx(1.0, abs=1e-4)


def test_the_last_commit_is_the_end_of_the_run(capable: Path) -> None:
    assert RunFolder(capable).position() == Position(3, 1, True)
    assert not list(capable.rglob(f"{ASIDE}*"))


def test_there_is_a_worker_per_gpu_that_clients_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(device: str = "cuda", per_round: int = 2, workers: int = 0, **model: str) -> int:
        federation = {"clients": 20, "per_round": per_round, "workers": workers}
        table = {"federation": federation, "model": {"device": device} | model}
        return engine.workers(validate(table))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert [found(), found("auto"), found(per_round=6), found(per_round=20)] == [4, 4, 6, 8]
    assert found(workers=3) == 3
    assert [found("cuda:1"), found(device_map="auto")] == [1, 1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert found("auto") == found(per_round=20) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert found() == 1


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_runs_folder_is_for_its_owner_alone(capable: Path) -> None:
    paths = [capable, *capable.rglob("*")]
    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in paths}
    assert modes == {(True, 0o700), (False, 0o600)}


def test_a_run_shows_its_table(capable: Path) -> None:
    run = fcit.load(capable)
    head, names, *rows, last = repr(run).splitlines()
    assert head == f"Run({str(capable)!r})"
    assert names.split()[3:] == run.results["datasets"]
    assert len(rows) == 4 + 1, "stages, and zero-shot"
    assert last.split()[-2:] == [f"{run.results[key]:.2f}" for key in ("last", "avg")]
    assert run._repr_html_().count("<tr>") == 7


def test_a_sample_of_a_client_that_never_trains_may_be_too_long(
    table: dict, suite: Path, tmp_path: Path
) -> None:
    name = handmade.too_long(suite, tmp_path / "data")
    changes = {
        "data": {"root": str(tmp_path / "data")},
        "training": table["training"] | {"max_length": 100},
    }
    made = Experiment(validate(table | changes))
    turns = [turn for rounds in made.plan for turns in rounds for turn in turns]
    (task,) = {turn.task for turn in turns if turn.task.name == "FigureQA"}
    (owner,) = [k for k, share in enumerate(made.shares(task)) if name in {one.id for one in share}]
    assert owner not in {turn.client for turn in turns if turn.task == task}
    fcit.run(table | changes, tmp_path / "run")


def test_samples_whose_ends_are_cut_off_are_told(
    table: dict, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Chat, "cuts_off", lambda self, sample, image: sample.dataset == "FigureQA")
    said: list[str] = []

    class Heard(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    run = fcit.run(table, tmp_path / "run", watch=Heard())
    plan = run.experiment.plan
    count = sum(
        len(run.experiment.data(Turn(client, task, 0, 0), replay=False).samples)
        for client, task in learners(plan, "FigureQA")
    )
    (line,) = [text for text in said if "max_length" in text]
    assert line.startswith(
        f"FigureQA: training.max_length cuts off the end of an answer of {count} of {count} training"
    )


@pytest.mark.parametrize("federation", [{"workers": 1}, {"workers": 2}, {"engine": "flower"}])
def test_a_later_stages_sample_that_is_too_long_is_told_before_anything_is_answered(
    federation: dict, table: dict, suite: Path, tmp_path: Path
) -> None:
    if "engine" in federation:
        pytest.importorskip("flwr")
    name = handmade.too_long(suite, tmp_path / "data")
    changes = {
        "data": {"root": str(tmp_path / "data")},
        "federation": table["federation"] | {"per_round": 4} | federation,
        "training": table["training"] | {"max_length": 100},
    }
    said = (
        f"^training.max_length: 100 tokens cut off .* of FigureQA sample {name}, whose image takes"
    )
    with pytest.raises(FcitError, match=said):
        fcit.run(table | changes, tmp_path / "run")
    assert not (tmp_path / "run" / "predictions").exists()


def test_a_template_without_an_end_is_told_before_anything_is_answered(
    table: dict, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(CHECKPOINTS / "mini-lmm", base)
    template = base / "chat_template.jinja"
    template.write_text(template.read_text().replace("</s>", "").replace("{{ eos_token }}", ""))
    model = {"path": str(base), "identity": str(CHECKPOINTS / "mini-clip")}
    with pytest.raises(FcitError, match="no control token ends the assistant's message"):
        fcit.run(validate(table | {"model": model}), tmp_path / "run")
    assert not (tmp_path / "run" / "predictions").exists()
    alone = fcit.run(
        validate(table | {"model": model, "method": {"name": "zeroshot"}}), tmp_path / "zero"
    )
    assert alone.results["last"] is not None
