"""Rooms stand on floors: imports point down only; heavy libraries stay in their rooms.

`python tests/test_floors.py` prints the picture: floors, rooms, lines, and what each room imports.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import fcit

ROOT = Path(fcit.__file__).parent
GROUND = ["types", "weights", "seeds", "files", "classes", "watch"]
"""The loose files: one room, the ground."""
LIGHT = ("files", "classes", "seeds", "types", "watch", "cli")


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    """The folder a file lies in; the loose files are the ground, `__init__` is the roof, and `__main__`
    belongs to the command line."""
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return (
        "ground" if first in GROUND else {"__init__": "roof", "__main__": "cli"}.get(first, first)
    )


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


def arrows() -> dict[str, set[str]]:
    """What each room imports of other rooms."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in files():
        here = room(path)
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "fcit" and len(parts) > 1:
                there = "ground" if parts[1] in GROUND else parts[1]
                if there != here and ((ROOT / there).is_dir() or there == "ground"):
                    found[here].add(there)
    return found


def floors() -> dict[str, int]:
    """Every room's floor: one above the highest room that it imports."""
    below = arrows()
    standing: dict[str, int] = {}
    for one in TopologicalSorter(below).static_order():
        standing[one] = 1 + max((standing[other] for other in below.get(one, ())), default=0)
    return standing


def test_rooms_stand_on_ten_floors_at_most_without_a_circle() -> None:
    try:
        standing = floors()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' -> '.join(error.args[1])}") from None
    assert max(standing.values()) <= 10


def test_at_most_six_loose_files_and_every_room_says_what_it_is_for() -> None:
    loose = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}
    assert loose == set(GROUND)
    for folder in {path.parent for path in files()} - {ROOT}:
        said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert said, folder


def test_only_the_command_line_and_tests_know_the_timings() -> None:
    for path in files():
        if any(name.split(".")[0] == "fcit_bench" for name in imports(path)):
            assert room(path) == "cli", path


def test_only_models_knows_transformers_and_only_flower_knows_flower() -> None:
    for path in files():
        roots = {name.split(".")[0] for name in imports(path)}
        assert "transformers" not in roots or room(path) == "models", path
        assert "tokenizers" not in roots or room(path) == "models", path
        assert "flwr" not in roots or room(path) == "flower", path


def test_no_class_name_is_there_twice() -> None:
    classes: dict[str, list[str]] = defaultdict(list)
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(str(path.relative_to(ROOT)))
    assert len(classes) > 100
    assert not {name: where for name, where in classes.items() if len(where) > 1}


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
        if room(path) in LIGHT or path.stem in LIGHT:
            roots = {name.split(".")[0] for name in imports(path, top_level_only=True)}
            assert not roots & heavy, path


def test_no_source_file_is_over_300_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in files()
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert not long


if __name__ == "__main__":
    standing, below = floors(), arrows()
    size: dict[str, int] = defaultdict(int)
    for file in files():
        size[room(file)] += len(file.read_text(encoding="utf-8").splitlines())
    for floor in sorted(set(standing.values()), reverse=True):
        for name in sorted(one for one, at in standing.items() if at == floor):
            print(f"{floor:3} {name:12} {size[name]:6} lines -> {' '.join(sorted(below[name]))}")
    print(f"{len(size)} rooms, {max(standing.values())} floors, ", end="")
    print(f"{sum(map(len, below.values()))} arrows, {sum(size.values())} lines")
