"""What the documents say is so: links lead somewhere, tables and examples agree with the code."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

import documents
import fcit
from documents import DOCS, ROOT, name
from fcit import methods, optimizers
from fcit.benchmark import datasets, rules
from fcit.recipe import config
from test_floors import floors

README = ROOT / "README.md"
METHODS = DOCS / "add-a-method.md"
DOCUMENTS = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(DOCS.rglob("*.md")),
]


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language in a document."""
    return [block.text for block in documents.blocks(path) if block.language == language]


def rows(path: Path, header: str) -> list[list[str]]:
    """The cells of the table under a header line."""
    _, found, rest = path.read_text("utf-8").partition(header + "\n")
    assert found, f"{name(path)} has no table {header}"
    lines = rest.split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# -- paths -----------------------------------------------------------------------------------------


def home() -> str:
    """The address of the repository, which pyproject.toml names."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"][
        "Repository"
    ]


@cache
def anchors(path: Path) -> set[str]:
    """The names of a page's headings in links."""
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_and_path_exists(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.S | re.M)
    lost = list[str]()
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        of_ours = re.sub(rf"^{re.escape(home())}/(blob|raw)/main/", f"{ROOT}/", link)
        to, _, anchor = of_ours.partition("#")
        if "://" not in to:
            page = path.parent / to if to else path
            lost += [link] if not page.exists() or (anchor and anchor not in anchors(page)) else []
    inside = r"`((?:src|tests|docs|recipes|examples|benchmarks)/[\w./-]+)`"
    named = set(re.findall(inside, text)) - documents.written()
    assert not lost + [one for one in named if not (ROOT / one).exists()]


def test_the_readme_leads_somewhere_from_a_package_index_too() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", README.read_text("utf-8"))
    assert links and all(link.startswith("https://") for link in links)


def test_the_readme_is_short_and_the_index_lists_every_page() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 120
    listed = re.findall(r"^\* \[([\w-]+\.md)\]\(\1\)", (DOCS / "index.md").read_text("utf-8"), re.M)
    assert sorted([*listed, "index.md"]) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_readmes_tree_names_folders_that_exist_and_every_room() -> None:
    (tree,) = (text for text in blocks(README, "") if text.startswith("src/"))
    named: set[Path] = set()
    for line in tree.splitlines():
        folder = Path()
        for room in line.split("  ")[0].split(", "):
            folder = folder.parent / room if "/" not in room else Path(room)
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
    head = "| hook | where | what it is, and what `Method` itself returns |"
    assert sorted(first_cells(METHODS, head)) == sorted(hooks.values())
    plan = (DOCS / "design.md").read_text("utf-8")
    assert all(re.search(rf"\b{hook}\b", plan) for hook in hooks.keys() - {"identity", "open"})


def test_the_members_of_a_token_routed_method_are_named() -> None:
    own = members(methods.TokenRouted)
    own = {key: value for key, value in own.items() if key not in vars(methods.Method)}
    told = first_cells(METHODS, "| member of `TokenRouted` | default |")
    inherited = {"asked_per", "gating", "tokens(state)"}
    assert set(told) == {*own.values(), "tokens_name"} | inherited


def test_the_class_variables_of_a_method_are_named() -> None:
    table = rows(METHODS, "| class variable | default | meaning |")
    kinds = {
        key
        for key, kind in vars(methods.Method)["__annotations__"].items()
        if "ClassVar" in str(kind)
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


def example_method(name: str, options: dict, tmp_path: Path) -> methods.Method:
    """An example of add-a-method.md."""
    (source,) = (one for one in blocks(METHODS, "python") if one.startswith(f'"""{name}:'))
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    return config.validate({"method": {"name": tmp_path / f"{name}.py"} | options}).method


def test_the_example_of_server_memory_goes_back(tmp_path: Path) -> None:
    import torch

    from fcit.types import Stage, State, Task

    method = example_method("lookback", {"share": 0.25}, tmp_path)
    with pytest.raises(fcit.FcitError, match=r"method\.share"):
        example_method("lookback", {"share": 2.0}, tmp_path)
    stage = Stage((Task("A", ("A",)),))
    state = method.begin(method.start({"w": torch.tensor([4.0])}, {}), stage)
    assert method.end(state, stage) is state
    state = method.begin(state, stage)
    trained = State({"0": {"w": torch.tensor([8.0])}}, state.extras)
    assert method.end(trained, stage).adapters["0"]["w"].tolist() == [7.0]


def test_the_example_of_identity_tokens_routes_by_them(tmp_path: Path) -> None:
    import torch

    from fcit.methods import Query
    from fcit.types import Identity, Stage, Task, Turn

    method = example_method("pertask", {"temperature": 0.5}, tmp_path)
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
    written = {
        block.file: block.text
        for block in documents.blocks(DOCS / "add-a-dataset.md")
        if block.file
    }
    for path, text in written.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    learnt, _ = datasets.read(tmp_path / "data", "My-Plants", "train")
    assert (learnt.id, learnt.answers) == ("a1", ("fern",))
    assert learnt.prompt == "Which plant is this?\nAnswer with one word."
    dataset = datasets.find("My-Plants", tmp_path / "data")
    assert (dataset.train_file, dataset.images) == ("train.json", "plants")
    near = rules.load(config.load(tmp_path / "my-meters.toml").data.rules)["My-Meters"]
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
