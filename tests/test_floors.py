"""Imports point down only; transformers, flwr and the heavy libraries stay in their rooms."""

from __future__ import annotations

import ast
from pathlib import Path

import fcit

ROOT = Path(fcit.__file__).parent
FLOORS = {
    1: (
        "types",
        "weights",
        "averaging",
        "robust",
        "packing",
        "privacy",
        "seeds",
        "files",
        "watch",
        "lookup",
        "metrics",
    ),
    2: ("methods", "optimisers", "models", "benchmark", "partition", "schedule"),
    3: ("client", "evaluate", "pretrain", "acceptance", "replies"),
    4: (
        "federation",
        "setting",
        "source",
        "tracking",
        "config",
        "cache",
        "experiment",
        "site",
        "server",
        "runfolder",
        "journal",
        "provenance",
    ),
    5: ("engines",),
    6: (
        "results",
        "tally",
        "session",
        "planning",
        "report",
        "api",
        "sweep",
        "export",
        "serve",
        "doctor",
        "bench",
        "cli",
        "flower_app",
    ),
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
LIGHT = ("types", "seeds", "files", "watch", "metrics", "cli")


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for part in node.body
        for inner in ast.walk(part)
    }
    nodes = tree.body if top_level_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            if node.module == "fcit":
                found |= {f"fcit.{name.name}" for name in node.names}
    return found


def test_every_file_has_a_floor() -> None:
    strangers = {room(path) for path in files()} - FLOOR.keys() - {"__init__"}
    assert not strangers


def test_imports_point_down_only() -> None:
    wrong = []
    for path in files():
        here = room(path)
        if here == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "fcit" or len(parts) == 1 or parts[1] not in FLOOR:
                continue
            there = parts[1]
            same_floor_rooms = FLOOR[there] == FLOOR[here] == 2 and there != here
            if FLOOR[there] > FLOOR[here] or same_floor_rooms:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_only_models_knows_transformers_and_only_engines_knows_flower() -> None:
    for path in files():
        roots = {name.split(".")[0] for name in imports(path)}
        assert "transformers" not in roots or room(path) == "models", path
        assert "tokenizers" not in roots or room(path) == "models", path
        assert "flwr" not in roots or room(path) == "engines", path


def test_nothing_is_pickled() -> None:
    for path in files():
        text = path.read_text(encoding="utf-8")
        assert "pickle" not in {name.split(".")[0] for name in imports(path)}, path
        if path.name != "llava_original.py":
            assert "torch.load" not in text, path
        assert text.count("torch.load") == text.count("weights_only=True"), path
        assert "torch.save" not in text, path


def test_light_files_stay_light() -> None:
    heavy = {"torch", "transformers", "numpy", "matplotlib", "PIL", "pydantic"}
    for path in files():
        if room(path) in LIGHT:
            roots = {name.split(".")[0] for name in imports(path, top_level_only=True)}
            assert not roots & heavy, path


def test_no_source_file_is_over_300_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in files()
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert not long
