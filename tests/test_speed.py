"""The benchmarks of speed: their arithmetic, and one line where they cannot run."""

from __future__ import annotations

import ast
import importlib
import json
import os
import runpy
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.mark.parametrize("script", sorted(SCRIPTS.rglob("*.py")), ids=lambda path: path.name)
def test_what_benchmarks_take_from_fcit_is_there(script: Path) -> None:
    """Also inside functions, which only a run of many minutes would come to."""

    def there(module: str, name: str) -> bool:
        found = importlib.import_module(module)
        package = hasattr(found, "__path__")
        return hasattr(found, name) or (package and find_spec(f"{module}.{name}") is not None)

    tree = ast.parse(script.read_text(encoding="utf-8"))
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    taken = [(node.module, one.name) for node in froms for one in node.names]
    assert [one for one in taken if one[0].split(".")[0] == "fcit" and not there(*one)] == []


def test_the_lower_bound_counts_frozen_layers_twice_and_trained_ones_three_times() -> None:
    from speed import lower_bound

    parts = {"depth": 2, "hidden": 4, "vocabulary": 7, "image_tokens": 3}
    shape = SimpleNamespace(
        decoder=0, layers={"up": (4, 6)}, projector={"weight": (5, 4), "bias": (5,)}, **parts
    )
    spans = [(10, 1), (20, 2)]
    lora, attention, head, joined = 2 * 3 * 10 * 30, 4 * 4 * 2 * 500, 2 * 4 * 7 * 3, 2 * 20 * 3 * 2
    assert lower_bound(shape, spans, 3) == 3 * (lora + attention + joined) + 2 * head
    shape.decoder = 100
    assert lower_bound(shape, spans, 3) == 3 * (lora + attention + joined) + 2 * (
        head + 2 * 100 * 30
    )


def test_a_round_and_the_padding_of_all_turns_are_measured(suite: Path) -> None:
    from speed import RECIPE, a_round, batches

    small = [f'data.root="{suite}"', "data.train=20", 'setting.order=["IconQA"]']
    small += ["federation.clients=2", "federation.per_round=1", "federation.min_samples=4"]
    found = a_round(RECIPE, [*small, "model.cache_features=false"], 1)
    encoded = [found[f"images encoded in pass {number}"] for number in (1, 2)]
    assert encoded == [found["distinct images"], 0] and encoded[0] > 3
    shares = [value for name, value in found.items() if "share" in name or "profile" in name]
    assert len(shares) > 9 and min(shares) > 0 and max(shares) < 1
    padded = batches(RECIPE, small, 1)
    assert padded["tokens"] > 20 * 36  # an image takes 36
    assert 0 <= padded["padding, grouped by length"] < 0.5


def test_padding_is_counted_by_batch() -> None:
    from speed import _padded

    assert _padded([3, 5, 1], iter([[0, 1], [2]])) == 11


@pytest.mark.parametrize(
    ("operator", "part"),
    [
        ("addmm", "matrix products"),
        ("bernoulli_", "dropout"),
        ("random_", "dropout"),
        ("_foreach_add_", "AdamW and clipping"),
        ("_softmax_backward_data", "softmax and losses"),
        ("add_", "element by element"),
        ("copy_", "copies and casts"),
        ("uniform_", "other operators"),
    ],
)
def test_operators_are_told_apart(operator: str, part: str) -> None:
    from speed import _part

    assert _part(operator) == part


def test_the_exponent_of_growth_is_that_of_the_last_two_points() -> None:
    from growth import exponent, table

    rows = [{"count": n, "seconds": 0.1 * n**2, "peak": 1e6 * n} for n in (1, 3, 10)]
    assert exponent(rows) == pytest.approx(2.0)
    assert table({"clients": rows}).splitlines()[-1] == "| clients | 10 | 10 | 9 | 2.00 |"


def test_random_numbers_of_measurements_are_not_the_global_ones(tmp_path: Path) -> None:
    from memory import write
    from speed import rate

    before = torch.get_rng_state()
    assert rate(2, 3, 4, torch.float32) > 0
    for name in ("one", "other"):
        write(tmp_path / name, 64, 1)
    assert torch.equal(torch.get_rng_state(), before)
    one, other = ((tmp_path / name / "model.safetensors") for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    "script",
    [one for one in sorted(SCRIPTS.glob("*.py")) if "options(__doc__)" in one.read_text("utf-8")],
    ids=lambda path: path.name,
)
def test_help_shows_a_scripts_description_as_it_is_written(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(script), run_name="__main__")
    lines = ast.get_docstring(ast.parse(script.read_text("utf-8")), clean=False)
    assert lines and lines.strip() in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_the_gpu_benchmark_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = os.environ | {"PYTHON": sys.executable}
    command = [SCRIPTS / "gpu" / "run.sh", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, env=python)
    assert done.returncode == 2
    said = "run.sh: no CUDA device here (--cpu-dry-run rehearses on a CPU)"
    assert done.stderr.splitlines()[-1] == said
    monkeypatch.setattr(sys, "argv", ["shape.py", "bench", "nowhere"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPTS / "gpu" / "shape.py"), run_name="__main__")
    assert ended.value.code == "shape.py: no CUDA device here; --cpu-dry-run rehearses on a CPU"
    assert capsys.readouterr() == ("", "")


def test_a_missing_or_old_package_is_named_before_a_gpu_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS / "gpu"))
    needs = importlib.import_module("needs")
    here = metadata.version("numpy")
    asked = ["numpy>=1", "numpy>=99", "no-such-package>=2", "nothing>=1; python_version < '3'"]
    assert needs.missing(asked) == [
        f"numpy>=99: version {here} is here",
        "no-such-package>=2: missing",
    ]


@pytest.mark.slow
def test_rounds_and_evaluations_are_measured_beside_another_checkout(tmp_path: Path) -> None:
    root = SCRIPTS.parent
    command = [sys.executable, SCRIPTS / "rounds.py", "--shapes", "mini", "--times", "1"]
    command += ["--against", root, "--json", tmp_path / "found.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    assert "answers are equal" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())["mini"]
    assert found["here"].keys() == found["there"].keys()
    assert all(seconds > 0 for (seconds,) in found["here"].values())
    assert found["here"]["evaluation, warm"] < found["here"]["evaluation, cold"]


@pytest.mark.slow
def test_all_parts_of_the_gpu_benchmark_run_on_a_cpu(tmp_path: Path) -> None:
    """Quantised weights alone need a GPU, and `align` and `real` the data of examples/real."""
    environment = os.environ | {"PYTHON": sys.executable}
    command = [SCRIPTS / "gpu" / "run.sh", tmp_path, "--cpu-dry-run"]
    subprocess.run(command, env=environment, check=False)
    told = (tmp_path / "summary.txt").read_text().splitlines()
    assert {line.split(" (")[0] for line in told} - {"align: ok", "real: ok"} == {
        *(f"{part}: ok" for part in ("model", "tests", "mini", "bench", "round")),
        "quantised: ended with status 1",
    }
    assert "need a CUDA GPU" in (tmp_path / "quantised.log").read_text()
