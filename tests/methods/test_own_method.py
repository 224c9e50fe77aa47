"""A method in a file of one's own, outside the package: every command knows it, and no client runs it."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import tomli_w

import fcit
import handmade
from commandline import COMMAND, call, refused
from fcit import methods
from fcit.engines.node import LocalClient, respond
from fcit.files import read_json
from fcit.recipe import config
from fcit.recipe.sections import DataSection
from fcit.report.run_data import read_run
from fcit.rounds.runfolder import RunFolder
from fcit.runs import api
from fcit.types import FcitError

MINE = """
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fcit.methods import Above0, Gating, TokenRouted
from fcit.types import Identity, State


@dataclass(frozen=True)
class PerTask(TokenRouted):
    heat: Above0 = 0.1

    def assign(self, state: State, identities: Sequence[Identity]) -> list[tuple[Identity, int]]:
        known = {name.partition("/")[2]: number for name, number in self.members(state).items()}
        return [(one, known.setdefault(one.task, len(known))) for one in identities]

    @property
    def gating(self) -> Gating:
        return Gating("softmax", self.heat)
"""


def write(folder: Path, table: dict, **changes: dict) -> Path:
    """A recipe that names the file beside it."""
    changed = copy.deepcopy(table) | {"method": {"name": "mine.py", "heat": 0.2}}
    for section, values in changes.items():
        changed[section] = changed[section] | values
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(MINE)
    (folder / "recipe.toml").write_text(tomli_w.dumps(changed))
    return folder / "recipe.toml"


def test_a_run_by_a_file_of_ones_own_is_continued_reported_and_used(
    table: dict, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, file = write(tmp_path / "own", table), tmp_path / "own" / "mine.py"
    image = next((suite / "datasets" / "IconQA").rglob("*.png"))
    typed = f"/image {image}\nHow many icons are there?\n"
    monkeypatch.chdir(tmp_path)
    commit = RunFolder.commit

    def cut_off(*given) -> None:
        commit(*given)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "commit", cut_off)
        fcit.run(recipe)
    run = tmp_path / "runs" / "task-hom-mine-seed3"
    words = ["run", "--resume", str(run), "--set", "federation.workers=2"]
    done = subprocess.run([*COMMAND, *words], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_json(run / "matrix.json")["method"] == "mine"
    assert RunFolder(run).table()["method"]["name"] == str(file.resolve())

    export = ["export", run, "--all", "--out", tmp_path / "exported"]
    for command in (["evaluate", run], ["why", run, "FigureQA"], ["chat", run], export):
        done = call(*command, typed=typed)
        assert done.returncode == 0, done.stderr
        assert str(file) not in done.stdout
    card = (tmp_path / "exported" / "README.md").read_text("utf-8")
    assert "mine" in card and str(file) not in card

    file.write_text(MINE + "# changed\n")
    again = ["export", run, "--subspace", "0", "--out", tmp_path / "again"]
    for command in (["run", "--resume", run], ["evaluate", run], ["chat", run], again):
        refused(call(*command, typed=typed), f"{file}: changed since this run began")
    assert read_run(run).method_used is None  # another file's class says nothing of this run
    refused(call("why", run, "FigureQA"), f"{file}: changed since this run began")
    file.unlink()
    refused(call("run", "--resume", run), f"{file}: no such Python file")
    assert "mine" in call("report", run, "--out", tmp_path / "report").stdout
    page = (tmp_path / "report" / "index.html").read_text("utf-8")
    assert "mine" in page and str(file) not in page
    found = read_run(run)
    assert found.method_used is None
    digest = hashlib.sha256(MINE.encode()).hexdigest()[:12]
    method = found.config["method"]
    assert (method["name"], method["file_digest"]) == ("mine", digest)


@pytest.mark.parametrize("section", ["method", "data"])
@pytest.mark.parametrize(
    "file",
    ["evil.py", "../evil.py", "~/evil.py", "{}/evil.py", "{}/../link.py", "/proc/self/cwd/evil.py"],
)
def test_a_run_folder_brings_no_code(
    section: str, file: str, table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folder = handmade.run(tmp_path / "there" / "run", table), tmp_path / "there" / "run"
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    for place in (folder, folder.parent):
        (place / "evil.py").write_text("from pathlib import Path\nPath('was run').touch()")
    (folder.parent / "link.py").symlink_to(folder / "evil.py")
    changed = RunFolder(folder).table()
    named = file.format(folder)
    changed["method"] |= {"name": named} if section == "method" else {}
    changed["data"] |= {"rules": {"IconQA": named}} if section == "data" else {}
    said = f"{named}: a run's folder must not bring code"
    for versions in ({"versions": {"fcit": "1"}}, {}):  # a forger may leave out what fcit writes
        told = {key: value for key, value in changed.items() if key != "versions"} | versions
        made.files.config.write_text(tomli_w.dumps(told))
        with pytest.raises(FcitError, match=re.escape(said)):
            config.load_run(made.files.config)
    refused(call("run", "--resume", folder), said)
    refused(call("evaluate", folder), said)
    call("report", folder, "--out", tmp_path / "report")
    assert not list(tmp_path.rglob("was run"))


def test_another_users_run_folder_runs_no_file_of_another_user(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    made = handmade.run(tmp_path / "run", table).files.config
    made.write_text(
        tomli_w.dumps(RunFolder(tmp_path / "run").table() | {"method": {"name": str(file)}})
    )
    assert config.load_run(made).method.name == "mine"
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(FcitError, match="in another user's folder only if it is yours"):
        config.load_run(made)


def test_a_runs_recipe_begins_another_run_after_the_file_changed(
    table: dict, tmp_path: Path
) -> None:
    recipe, file = write(tmp_path / "own", table), tmp_path / "own" / "mine.py"
    run = tmp_path / "run"
    RunFolder(run).begin(config.to_table(config.load(recipe)) | {"versions": {"fcit": "1"}})
    file.write_text("from hashlib import file_digest\n" + MINE.replace("from __future__", "#"))
    again = config.load(RunFolder(run).config)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    assert config.to_table(again)["method"]["file_digest"] == digest
    file.write_text("raise SystemExit('was run')")
    with pytest.raises(FcitError, match="changed since this run began"):
        config.load_run(RunFolder(run).config)  # and is not run to know it


def test_a_method_that_changed_after_it_was_read_does_not_train(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook's configuration, and a worker that starts again, read the file at other times."""
    recipe = write(tmp_path / "own", table, federation={"workers": 2})
    read = config.load(recipe)
    (tmp_path / "own" / "mine.py").write_text(MINE + "# changed\n")
    with pytest.raises(FcitError, match="mine.py: changed since this run began"):
        fcit.run(read, tmp_path / "run")


def test_a_recipes_file_is_not_run_for_another_method(table: dict, tmp_path: Path) -> None:
    recipe = write(tmp_path, table)
    (tmp_path / "two.py").write_text(MINE)
    (tmp_path / "mine.py").write_text("raise SystemExit('was run')")
    assert config.load(recipe, method="finetune").method.name == "finetune"
    named = ["method.name=" + str(tmp_path / "two.py")]
    assert config.load(recipe, named).method.name == "two"


def test_flowers_simulation_runs_a_file_of_ones_own(table: dict, tmp_path: Path) -> None:
    pytest.importorskip("flwr")
    recipe = write(tmp_path, table, federation={"rounds": 1, "engine": "flower"})
    assert fcit.run(recipe, tmp_path / "run").results["method"] == "mine"


def test_a_changed_file_is_another_class_even_within_a_second(tmp_path: Path) -> None:
    file, found = tmp_path / "mine.py", []
    for heat in ("0.1", "0.2", "0.2"):
        file.write_text(MINE.replace("0.1", heat))
        found.append(methods.find(str(file)))
    assert [kind().heat for kind in found] == [0.1, 0.2, 0.2]  # type: ignore[attr-defined]
    assert found[1] is found[2]
    assert not (tmp_path / "__pycache__").exists()


def test_a_path_starts_where_it_was_written(
    tmp_path: Path, table: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, here = write(tmp_path / "own", table), tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    Path("two.py").write_text(MINE)
    Path("disco").mkdir()  # no path, though it is there
    named = [
        config.load(recipe),
        config.load(recipe, method="two.py"),
        config.load(recipe, ["method.name=two.py"]),
        config.validate({"method": {"name": Path("two.py")}}),
        config.load(recipe, method="disco"),
    ]
    assert [one.method.name for one in named] == ["mine", "two", "two", "two", "disco"]
    assert [getattr(one.method, "heat", None) for one in named] == [0.2, 0.2, 0.2, 0.1, None]
    for one in named:
        assert config.validate(json.loads(json.dumps(config.to_table(one)))) == one


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("gone.py", None, "no such Python file"),
        ("none.py", "x = 1", "must define one subclass of Method, not 0"),
        (
            "two.py",
            MINE + MINE.replace("PerTask", "Other").replace("from __future__", "#"),
            "not 2",
        ),
        ("bad.py", "1 +", "cannot be used: SyntaxError: invalid syntax (bad.py, line 1)"),
        ("lost.py", "import nothing_of_this_name", "cannot be used: ModuleNotFoundError"),
        ("beside.py", "from . import mine", "cannot be used: ImportError: attempted relative"),
        ("ends.py", "raise SystemExit(0)", "cannot be used: SystemExit"),
        ("disco.py", MINE, "disco is one of fcit's methods; give the file another name"),
        ("my method.py", MINE, "letters, digits, _ and - only; rename the file"),
        ("untyped.py", MINE.replace("heat: Above0", "heat"), "untyped: add a type to heat"),
    ],
)
def test_a_file_that_is_no_method_is_one_line(
    name: str, source: str | None, said: str, table: dict, tmp_path: Path
) -> None:
    recipe, file = write(tmp_path, table), tmp_path / name
    if source:
        file.write_text(source)
    recipe.write_text('[method]\nname = "mine.py"\n')
    for words in (["--method", file], ["--set", f"method.name={file}"]):
        refused(call("plan", recipe, *words), said)
    recipe.write_text(f'[method]\nname = "{name}"\n')
    refused(call("run", recipe, "--out", tmp_path / "run"), f"{recipe}: ", said)
    assert not (tmp_path / "run").exists()


def test_no_client_runs_a_method_that_the_servers_recipe_names(
    table: dict, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, file = write(tmp_path, table), tmp_path / "mine.py"
    file.write_text("raise SystemExit('was run')")
    own = DataSection(root=str(suite))
    asked = {"do": "hello", "run": "a", "config": table | {"method": {"name": str(file)}}}
    said = 'a client runs no file that the server names; .*, and set method.name = "mine"'
    assert "unready" in respond(asked, {}, LocalClient(1, tmp_path, own))[0]
    (line,) = capsys.readouterr().err.splitlines()
    with pytest.raises(FcitError, match=said):
        raise FcitError(line)
    refused(
        call("data", "check", suite, "--client", "1", "--recipe", recipe), "a client runs no file"
    )


def test_a_federation_across_machines_is_refused_a_method_of_the_servers_own(
    table: dict, tmp_path: Path
) -> None:
    pytest.importorskip("flwr")
    from fcit.runs import flower_app

    recipe, out = write(tmp_path, table), tmp_path / "federation"
    refused(call("deploy", "init", recipe, "--out", out), f"{tmp_path / 'mine.py'}: a client runs")
    assert not out.exists()
    with pytest.raises(FcitError, match="a client runs no file that the server names"):
        flower_app.run({"recipe": str(recipe), "out": str(out)}, lambda *_: pytest.fail("built"))
    assert not out.exists()


def test_a_sweep_calls_a_file_of_ones_own_by_its_name(table: dict, tmp_path: Path) -> None:
    write(tmp_path, table, federation={"rounds": 1})
    part = {"recipe": "recipe.toml", "methods": ["mine.py", "finetune"], "seeds": [0]}
    (tmp_path / "sweep.toml").write_text(tomli_w.dumps({"out": "runs", "runs": [part]}))
    done = call("sweep", tmp_path / "sweep.toml", "--only", "mine")
    assert done.returncode == 0, done.stderr
    run = api.load(tmp_path / "runs" / "recipe" / "mine" / "seed0")
    assert run.results["method"] == "mine"
    done = call("sweep", tmp_path / "sweep.toml", "--dry-run")
    assert "recipe mine seed 0" in done.stdout and "1 of 2 runs are left" in done.stdout
