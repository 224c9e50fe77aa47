"""What a newcomer types first, and every mistake in one line before anything is made or loaded."""

import importlib.metadata
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from unittest.mock import Mock

import pytest
import tomli_w
from click.testing import CliRunner
from typer.main import get_command

import fcit
import handmade
from commandline import call, refused
from fcit.cli import app
from fcit.cli import run as cli_run
from fcit.recipe import config
from fcit.report import style
from fcit.runs import sweep
from fcit.watch import Terminal

GROUP = get_command(app)
COMMANDS = [
    (name, *inner)
    for name, command in GROUP.commands.items()  # type: ignore[attr-defined]
    for inner in ([(key,) for key in command.commands] if hasattr(command, "commands") else [()])
]


def test_a_first_recipe_comes_from_the_package(tmp_path: Path) -> None:
    listed = call("recipe")
    assert listed.returncode == 0
    for name in ("demo", "own", "mini/task-hom", "paper/cap-het"):
        assert f" {name} " in listed.stdout
    written = call("recipe", "demo")
    assert (written.returncode, written.stderr) == (0, "")
    path = tmp_path / "demo.toml"
    path.write_text(written.stdout, encoding="utf-8")
    assert config.load(path).setting.order == ("ImageNet-R", "CLEVR-Math", "Flickr30k")
    refused(call("recipe", "dmo"), "no recipe 'dmo'", "did you mean 'demo'?")


def test_a_recipe_of_the_package_runs_by_its_name_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.load(Path("demo")).setting.order == ("ImageNet-R", "CLEVR-Math", "Flickr30k")
    assert config.load(Path("ucit/task-hom")).data.root == str(tmp_path / "UCIT")
    assert config.load(Path("real/llava-1.5-7b")).model.path == "llava-hf/llava-1.5-7b-hf"
    small = [f"--set=federation.{key}" for key in ("rounds=1", "per_round=1", "clients=1")]
    small += ["--set=data.train=20", "--set=data.test=4", '--set=setting.order=["CLEVR-Math"]']
    small += ["--set=evaluation.max_new_tokens=1", "--set=evaluation.general_questions=0"]
    done = call("run", "demo", *small, "--set=federation.workers=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("run folder: runs/task-hom-disco-seed0\n")
    (tmp_path / "demo").mkdir()
    assert config.load(Path("demo")).setting.order == ("ImageNet-R", "CLEVR-Math", "Flickr30k")
    again = call("run", "demo", *small, "--set=federation.workers=1", "--resume")
    assert again.returncode == 0 and again.stdout == done.stdout, again.stderr
    (tmp_path / "demo").rmdir()
    Path("runs/task-hom-disco-seed0").rename(tmp_path / "demo")
    there = call(
        "run", "demo", *small, "--set=federation.workers=1", "--resume", "--out", "runs/new"
    )
    refused(there, "runs/new: no such run folder to resume")  # `demo` is the recipe's name, too
    (tmp_path / "mine").mkdir()
    refused(call("run", "mine"), "mine: is a folder, not a recipe")
    refused(call("plan", "mine"), "mine: is a folder, not a recipe")
    refused(call("run", "dmo"), "dmo: no such recipe; did you mean 'demo'?")
    refused(call("plan", "nothing-like-it"), "no such recipe; fcit recipe lists those")


def test_a_sweep_that_comes_with_fcit_runs_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, *_ = runs = sweep.read(Path("compare"))
    assert len(runs) == 9 and first.folder == tmp_path / "runs/compare/demo/disco/seed0"
    assert first.recipe == Path("demo") and config.load(first.recipe, first.changes, "disco")
    assert {run.recipe.as_posix() for run in sweep.read(Path("mini/comparison"))} == {
        f"mini/{setting}" for setting in ("task-hom", "task-het", "cap-hom", "cap-het")
    }
    mine = tmp_path / "mine.toml"
    mine.write_text('[[runs]]\nrecipe = "demo"\nmethods = ["disco"]\nseeds = [0]\n')
    assert [run.recipe for run in sweep.read(mine)] == [Path("demo")]
    refused(call("sweep", "compar"), "compar: no such sweep; did you mean 'compare'?")


def test_the_demo_compares_two_methods_and_keeps_what_is_finished(
    tmp_path: Path, table: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures, which take most of a report's time, stay empty."""
    monkeypatch.setattr(style, "to_svg", lambda figure: "<svg/>")
    monkeypatch.setattr(style, "save_png", lambda figure, path: path.touch())
    short = table | {
        "setting": table["setting"] | {"order": ["IconQA"]},
        "federation": table["federation"] | {"rounds": 1, "per_round": 1},
        "evaluation": {"limit": 2, "max_new_tokens": 1, "general_questions": 0},
    }
    (tmp_path / "demo.toml").write_text(tomli_w.dumps(short))
    monkeypatch.setattr(cli_run, "recipes", lambda: {"demo": tmp_path / "demo.toml"})
    monkeypatch.chdir(tmp_path)
    done = call("demo")
    assert done.returncode == 0, done.stderr
    page = tmp_path / "runs" / "demo" / "report" / "index.html"
    assert page.is_file() and done.stdout.splitlines()[-1] == str(page)
    rows = [line.split("│")[1].strip() for line in done.stdout.splitlines() if "│" in line]
    assert sorted(rows) == ["disco", "finetune"]
    again = call("demo")
    assert again.stdout == done.stdout
    assert again.stderr.count("is already finished") == 2
    refused(call("demo", "--out", tmp_path / "demo.toml"), "demo.toml")
    (tmp_path / "runs" / "demo").rename(tmp_path / "demo")
    assert call("demo", "--out", "demo").returncode == 0


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_has_an_example(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(GROUP, [*words, "--help"], prog_name="fcit")
    assert f"Example:  fcit {' '.join(words)}" in done.output


def test_the_version_is_an_attribute() -> None:
    assert fcit.__version__ == version("fcit")


def test_a_source_tree_that_is_not_installed_knows_its_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Flower's server and nodes compare theirs."""
    installed = version("fcit")
    monkeypatch.setattr(importlib.metadata, "distribution", Mock(side_effect=PackageNotFoundError))
    assert fcit.__version__ == installed
    other = Mock(return_value=Mock(version="1.2.0"))  # the project that has this name on PyPI
    monkeypatch.setattr(importlib.metadata, "distribution", other)
    assert fcit.__version__ == installed


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("run x.toml --method mo", {"moelora"}),
        ("run x.toml --set federation.rou", {"federation.rounds="}),
        ("recipe de", {"demo"}),
        ("data pa", {"partition"}),
        ("score --mode s", {"strict"}),
    ],
)
def test_a_shell_completes_values(typed: str, offered: set[str]) -> None:
    asked = {"_FCIT_COMPLETE": "complete_bash", "COMP_WORDS": f"fcit {typed}"}
    asked["COMP_CWORD"] = str(len(typed.split()))
    done = CliRunner().invoke(GROUP, prog_name="fcit", env=asked)
    assert set(done.output.split()) == offered


def test_the_cache_is_shown_and_only_its_own_parts_are_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FCIT_CACHE", str(tmp_path))
    assert call("cache").stdout == f"{tmp_path}: is empty\n"
    for name in ("mini-1234abcd-seed0-60x24", "features", "mini-cooper"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * 2_500_000)
    shown = call("cache").stdout
    assert shown.count("2.5") == 2 and "5.0" in shown and "mini-cooper" not in shown
    assert call("cache", "--clear").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mini-cooper"]


@pytest.fixture(scope="module")
def recipe(table: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "short.toml"
    path.write_text(tomli_w.dumps(table))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["federation.rouds=2"],
            "--set federation.rouds=2: federation.rouds: unknown key; did you",
        ),
        (["lr=2"], "--set lr=2: lr: unknown key; did you mean training.lr?"),
        (
            ["seed=1", "method.tao=1", "seed=2"],
            "--set method.tao=1: method: disco has no 'tao'; did",
        ),
        (["federation.rounds=2.5"], "must be a whole number (got 2.5)"),
        (["evaluation.forward_transfer=True"], "must be true or false (got 'True')"),
        (["setting.order=[IconQA]"], """--set 'setting.order=["IconQA"]'"""),
        (["seed"], "--set seed: write key=value"),
        (["federation.clients=2", "federation.per_round=3"], "--set federation.per_round=3: "),
        (["federation.workers=100000"], "federation.workers: 100000 processes for 2 clients"),
        (["model.path=/nowhere/at/all"], "model.path: /nowhere/at/all: no such folder"),
        (["model.identity=."], "there is no config.json in it"),
        (["data.root=", "setting.order=['IconQa']"], "'IconQa'; did you mean 'IconQA'?"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_loaded(
    changes: list[str], said: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FCIT_CACHE", str(tmp_path / "cache"))
    done = call("run", recipe, "--out", tmp_path / "run", *(f"--set={text}" for text in changes))
    refused(done, said)
    assert "loading" not in done.stderr and "making" not in done.stderr
    assert not (tmp_path / "cache").exists()


def test_the_file_is_blamed_for_what_it_says_itself(recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[federation]\nround = 3\n")
    refused(call("run", path, "--set", "seed=1"), f"{path}: federation.round: unknown key")
    path.write_text("[federation]\nper_round = 3\n")
    refused(call("run", path, "--set=federation.clients=2"), "--set federation.clients=2: ")


def test_a_hub_name_without_a_network_is_one_line(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = call("run", recipe, "--out", tmp_path / "run", "--set=model.path=nobody/none")
    refused(done, "model.path: nobody/none: no such folder, and https://")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("out", ["file", "file/run", "full"])
def test_a_folder_that_cannot_be_written_is_named(out: str, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other").write_text("x")
    refused(call("run", recipe, "--out", tmp_path / out), str(tmp_path / out.split("/")[0]))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rn", "x"], "No such command 'rn'. Did you mean 'run'?; see fcit --help"),
        (["run"], "Missing argument 'RECIPE'; see fcit run --help"),
        (["run", "x", "--metod", "y"], "No such option '--metod'"),
        (["run", "x", "--engine", "flwr"], "'flwr' is not one of 'local', 'flower'"),
        (["run", "--resume", "gone"], "gone: no such run folder or recipe"),
        (["run", "."], "fcit run --resume . continues the run"),
    ],
)
def test_wrong_words_are_one_line_too(words: list[str], said: str) -> None:
    done = call(*words)
    refused(done, said)
    assert len(done.stderr.splitlines()) == 1


def test_a_finished_run_needs_no_recipe_and_no_model_to_be_shown(
    table: dict, tmp_path: Path
) -> None:
    run = handmade.run(tmp_path / "first", table)
    matrix = {
        "setting": "task-hom", "method": "disco", "scoring": "strict", "beta": 1.0, "seed": 3,
        "datasets": ["IconQA", "FigureQA"], "stages": ["IconQA", "FigureQA"],
        "matrix": [[50.0, None], [50.0, 50.0]], "last": 50.0, "avg": 50.0,
    }  # fmt: skip
    run.files.write(run.files.matrix, matrix)
    done = call("run", "--resume", run.folder)
    assert done.returncode == 0, done.stderr
    assert "this run is already finished" in done.stderr and "loading" not in done.stderr
    assert "Last" in done.stdout and done.stdout.endswith(f"run folder: {run.folder}\n")
    refused(call("run", "--resume", run.folder, "--set=seed=9"), "another config (seed differs)")
    refused(
        call("run", "--resume", run.folder, "--out", tmp_path / "x"), "is a folder, not a recipe"
    )


def test_ctrl_c_is_one_line_from_the_first_moment() -> None:
    code = "import sys, os, signal, fcit; from fcit.__main__ import main\n"
    code += "class Stop:\n def find_spec(self, name, *_):\n"
    code += "  if name == sys.argv[1]: os.kill(os.getpid(), signal.SIGINT)\n"
    code += "sys.meta_path.insert(0, Stop()); where = sys.argv[1]; sys.argv[1:] = ['doctor']; "
    code = code.replace("== sys.argv[1]", "== where") + "main()"
    for moment in ("typer", "torch"):
        words = [sys.executable, "-c", code, moment]
        done = subprocess.run(
            words, capture_output=True, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (130, "fcit: stopped\n"), moment


def test_a_bar_that_never_moved_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal().bar("nothing", 1):
        pass
    assert capsys.readouterr().err == ""
