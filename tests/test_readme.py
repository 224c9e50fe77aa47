"""What the documents say is so: commands parse, paths exist, tables and examples agree with the code."""

from __future__ import annotations

import ast
import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer
from PIL import Image

import fcit
from fcit import methods, optimizers
from fcit.benchmark import datasets, rules
from fcit.cli import app
from fcit.recipe import config
from fcit.runs.api import Run
from test_floors import floors

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
METHODS = DOCS / "add-a-method.md"
DOCUMENTS = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(DOCS.rglob("*.md")),
]
PROGRAMS = ("fcit", "python", "make", "pip", "flwr", "export")

MINE = re.compile(r"(runs/|my-|data$|photo|partition\.png)")
"""Paths in examples that a reader makes, as against those that are here."""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language in a document."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", path.read_text("utf-8"), re.S | re.M)
    return [one[2] for one in found if one[1] == language]


def commands(path: Path) -> Iterator[list[str]]:
    """The words of every shell line of a document, comments left out."""
    for block in blocks(path, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words[: words.index(">")] if ">" in words else words


def fcit_commands() -> list[list[str]]:
    found = [words for path in DOCUMENTS for words in commands(path)]
    return [words[1:] for words in found if Path(words[0]).name == "fcit"]


def rows(path: Path, header: str) -> list[list[str]]:
    """The cells of the table under a header line."""
    _, found, rest = path.read_text("utf-8").partition(header + "\n")
    assert found, f"{name(path)} has no table {header}"
    lines = rest.split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# -- commands --------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", fcit_commands(), ids=" ".join)
def test_every_fcit_command_parses(words: list[str]) -> None:
    command, rest = typer.main.get_command(app), list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    given = command.make_context(" ".join(words), rest).params
    if recipe := given.get("recipe"):
        if MINE.match(str(recipe)):
            return
        assert (ROOT / recipe).is_file(), recipe
        if given.get("method") == "lookback":
            return  # the example of add-a-method.md, tested below
        config.load(ROOT / recipe, given["changes"] or [], given.get("method"))


def test_every_command_is_shown() -> None:
    shown = {tuple(words[: 2 if words[0] == "data" else 1]) for words in fcit_commands()}
    top = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {(one,) for one in top if one != "data"} | {
        ("data", one) for one in top["data"].commands
    }
    assert known <= shown


def test_make_targets_and_scripts_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.M))
    for path in DOCUMENTS:
        text = path.read_text("utf-8")
        named = re.findall(r"^make ([a-z-]+)|`make (?:\w+=\S+ )?([a-z-]+)`", text, re.M)
        assert {one or other for one, other in named} <= targets, name(path)
        for words in commands(path):
            assert Path(words[0]).name in PROGRAMS, words
            if Path(words[0]).name == "python":
                assert (ROOT / words[1]).is_file(), words[1]


# -- paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_and_path_exists(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.S | re.M)
    links = [one for one in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in one]
    lost = [one for one in links if not (path.parent / one).exists()]
    inside = r"`((?:src|tests|docs|recipes|examples|benchmarks)/[\w./-]+)`"
    own = {"src/fcit/methods/lookback.py", "src/fcit/methods/pertask.py"}  # of add-a-method.md
    lost += [
        one for one in re.findall(inside, text) if one not in own and not (ROOT / one).exists()
    ]
    assert not lost


def test_the_readme_is_short_and_the_index_lists_every_page() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 120
    listed = re.findall(r"^\* \[([\w-]+\.md)\]\(\1\)", (DOCS / "index.md").read_text("utf-8"), re.M)
    assert sorted([*listed, "index.md"]) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_readmes_tree_names_folders_that_exist_and_every_room() -> None:
    (tree,) = (text for text in blocks(README, "") if text.startswith("src/"))
    named: set[Path] = set()
    for line in tree.splitlines():
        folder = Path()
        for name in line.split("  ")[0].split(", "):
            folder = folder.parent / name if "/" not in name else Path(name)
            assert (ROOT / folder).is_dir(), line
            named.add(folder)
    rooms = {path.parent.relative_to(ROOT) for path in ROOT.glob("src/fcit/*/__init__.py")}
    assert rooms <= named


# -- tables ----------------------------------------------------------------------------------------


def test_the_plan_names_every_hook_of_an_optimizer() -> None:
    hooks = {key for key, value in vars(optimizers.Optimizer).items() if inspect.isfunction(value)}
    plan = (DOCS / "design.md").read_text("utf-8")
    part = plan.partition("## A federated optimizer")[2].partition("\n## ")[0]
    assert all(re.search(rf"^    {hook}\(", part, re.M) for hook in hooks if hook[0] != "_")


def members(kind: type) -> dict[str, str]:
    """A class's public methods with their parameters, and its properties, as a document writes them."""
    found: dict[str, str] = {}
    for key, value in vars(kind).items():
        if isinstance(value, property) and not key.startswith("_"):
            found[key] = key
        elif inspect.isfunction(value) and not key.startswith("_"):
            found[key] = f"{key}({', '.join(list(inspect.signature(value).parameters)[1:])})"
    return found


def first_cells(path: Path, header: str) -> list[str]:
    return [cell.strip("`") for cell, *_ in rows(path, header)]


def test_the_hook_table_names_every_hook_and_its_parameters() -> None:
    hooks = members(methods.Method)
    assert sorted(first_cells(METHODS, "| hook | where | default |")) == sorted(hooks.values())
    plan = (DOCS / "design.md").read_text("utf-8")
    assert all(re.search(rf"\b{hook}\b", plan) for hook in hooks.keys() - {"identity", "open"})


def test_the_members_of_a_token_routed_method_are_named() -> None:
    own = members(methods.TokenRouted)
    own = {key: value for key, value in own.items() if key not in vars(methods.Method)}
    told = first_cells(METHODS, "| member of `TokenRouted` | default |")
    inherited = {"gating", "tokens(state)"}
    assert set(told) == {*own.values(), "tokens_name"} | inherited


def test_the_class_variables_of_a_method_are_named() -> None:
    table = rows(METHODS, "| class variable | default | meaning |")
    kinds = {
        key for key, kind in vars(methods.Method)["__annotations__"].items() if "ClassVar" in kind
    }
    told = {key.strip("`"): ast.literal_eval(value.strip("`")) for key, value, _ in table}
    assert told == {key: getattr(methods.Method, key) for key in kinds}


def test_the_table_of_the_model_names_all_that_a_method_may_touch() -> None:
    attributes = {key: key for key in vars(methods.Model)["__annotations__"]}
    known = members(methods.Model) | attributes
    assert sorted(first_cells(METHODS, "| member | what it is |")) == sorted(known.values())


def test_the_plan_has_the_floors_of_the_code() -> None:
    table = rows(DOCS / "design.md", "| floor | rooms |")
    standing = floors()
    del standing["roof"]
    told = {room: int(floor) for floor, rooms in table for room in re.findall(r"`(\w+)`", rooms)}
    assert told == standing


def test_the_table_of_rules_names_every_rule() -> None:
    table = rows(DOCS / "add-a-dataset.md", "| rule | an answer is right if it | test record |")
    assert sorted(rule.strip("`") for rule, *_ in table) == rules.names()


# -- examples --------------------------------------------------------------------------------------


def test_the_python_example_uses_what_there_is() -> None:
    for block in blocks(README, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = {"fcit": fcit, "run": Run}[node.value.id]
                assert hasattr(owner, node.attr), node.attr
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = {"fcit": fcit, "run": Run}[ast.unparse(node.func.value)]
                given = [None] * (len(node.args) + (owner is Run))
                keys = {one.arg: None for one in node.keywords if one.arg}
                inspect.signature(getattr(owner, node.func.attr)).bind(*given, **keys)


def example_method(
    name: str, options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> methods.Method:
    """An example of add-a-method.md, put where methods are found."""
    (source,) = (one for one in blocks(METHODS, "python") if one.startswith(f'"""{name}:'))
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    return config.validate({"method": {"name": name} | options}).method


def test_the_example_of_server_memory_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from fcit.types import Stage, State, Task

    method = example_method("lookback", {"share": 0.25}, tmp_path, monkeypatch)
    with pytest.raises(fcit.FcitError, match=r"method\.share"):
        config.validate({"method": {"name": "lookback", "share": 2.0}})
    stage = Stage((Task("A", ("A",)),))
    state = method.begin(method.start({"w": torch.tensor([4.0])}, {}), stage)
    assert method.end(state, stage) is state
    state = method.begin(state, stage)
    trained = State({"0": {"w": torch.tensor([8.0])}}, state.extras)
    assert method.end(trained, stage).adapters["0"]["w"].tolist() == [7.0]


def test_the_example_of_identity_tokens_routes_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from fcit.methods import Query
    from fcit.types import Identity, Stage, Task, Turn

    method = example_method("pertask", {"temperature": 0.5}, tmp_path, monkeypatch)
    tasks = [Task(name, (name,)) for name in ("A", "B")]
    state = method.begin(method.start({"w": torch.ones(1)}, {}), Stage((tasks[0],)))
    turns = [
        Turn(client, task, 0, 0) for client, task in zip((3, 5, 7), (*tasks, tasks[0]), strict=True)
    ]
    assert method.to_identify(state, turns) == turns
    tokens = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    given = [Identity(t.client, t.task.name, row, 1) for t, row in zip(turns, tokens, strict=True)]
    state = method.organise(state, given[:2])
    state = method.organise(state, given[2:])
    assert [method.adapter(state, turn) for turn in turns] == ["0", "1", "0"]
    assert not any(method.reason_to_skip(state, turn) for turn in turns)
    tokens = method.tokens(state)
    assert tokens is not None and tokens.tolist() == [[2.0, 0.0], [0.0, 1.0]]
    shares = method.route(state, Query("", torch.tensor([5.0, 0.0])))
    assert list(shares.values()) == (torch.tensor([1.0, 0.0]) / 0.5).softmax(0).tolist()


def test_the_example_records_are_read(tmp_path: Path) -> None:
    document = DOCS / "add-a-dataset.md"
    train, test = blocks(document, "json")
    folder = tmp_path / "data" / "instructions" / "My-Plants"
    (tmp_path / "data" / "datasets" / "plants").mkdir(parents=True)
    folder.mkdir(parents=True)
    for split, text in (("train", train), ("test", test)):
        json.loads(text)
        (folder / f"{split}.json").write_text(text, encoding="utf-8")
    for number, colour in (("0001", "green"), ("0002", "grey")):
        place = tmp_path / "data" / "datasets" / "plants" / f"{number}.png"
        Image.new("RGB", (8, 8), colour).save(place)
    from fcit.benchmark.check import check

    assert check(tmp_path / "data").problems == []
    (learnt,) = datasets.read(tmp_path / "data", "My-Plants", "train")
    assert (learnt.id, learnt.answers) == ("a1", ("fern",))
    assert learnt.prompt == "Which plant is this?\nAnswer with one word."
    recipe, told, named = blocks(document, "toml")
    assert config.validate(tomllib.loads(recipe)).setting.order == ("My-Plants", "My-Rocks")
    (folder / "dataset.toml").write_text(told, encoding="utf-8")
    dataset = datasets.find("My-Plants", tmp_path / "data")
    assert (dataset.train_file, dataset.images) == ("train_10k.json", "plants")
    (source,) = blocks(document, "python")
    (tmp_path / "near.py").write_text(source, encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(named, encoding="utf-8")
    near = rules.load(config.load(tmp_path / "recipe.toml").data.rules)["My-Meters"]
    assert near.right("10", "10.4", "strict") and not near.right("ten", "10", "strict")


def test_the_tree_of_a_run_names_its_files() -> None:
    from fcit.rounds.runfolder import RunFolder
    from fcit.runs.client_scores import file

    (tree,) = (one for one in blocks(DOCS / "run-folder.md", "") if one.startswith("runs/"))
    folder = RunFolder(Path("runs/first"))
    for path in (folder.config, folder.matrix, folder.log, folder.partition):
        assert path.name in tree
    for path in (folder.predictions("STAGE", "DATASET"), file(folder.path, "STAGE", "DATASET")):
        assert str(path.relative_to(folder.path)) in tree
    assert "state/state.json" in tree
