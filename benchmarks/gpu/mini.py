"""DISCO's run of recipes/demo.toml on a CUDA device, compared with the same run on a CPU.

    .venv/bin/python benchmarks/gpu/mini.py OUT

Two runs go on at once: `usual` is the recipe as it is (bf16 on the GPU; dropout is drawn on the device,
so its random numbers differ), `exact` is in float32 without dropout (only the order of additions
differs). The CPU's matrices are in benchmarks/gpu/cpu/, made by the same two runs with
`model.device=cpu`, on a CPU that computes in float32.

Each cell is printed for both. Last and Avg must agree within 5 points, three times the spread of seeds
(1.7 points, docs/results.md). Exit status 1 if they do not. --cpu-dry-run runs one round on a CPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

TOLERANCE = {"usual": 5.0, "exact": 1.0}
"""Points by which Last and Avg may differ: seeds and dropout differ, or only the order of additions."""
RUNS = {"usual": [], "exact": ["model.dtype=float32", "training.dropout=0.0"]}
HERE = Path(__file__).parent


def main() -> None:
    """Run both, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--cpu-dry-run", action="store_true")
    given = parser.parse_args()
    import torch

    if not (given.cpu_dry_run or torch.cuda.is_available()):
        sys.exit("mini.py: no CUDA device here; --cpu-dry-run rehearses on a CPU")
    recipe = HERE.parents[1] / "src" / "fcit" / "recipes" / "demo.toml"
    changes = ["model.device=cuda"]
    if given.cpu_dry_run:
        changes = ["model.device=cpu", "federation.rounds=1", "evaluation.limit=4"]
    begun, running = time.perf_counter(), {}
    for name, own in RUNS.items():
        sets = [word for change in (*changes, *own) for word in ("--set", change)]
        command = [sys.executable, "-m", "fcit", "run", str(recipe), "--method", "disco", *sets]
        running[name] = subprocess.Popen([*command, "--out", str(given.out / name)])
    failed = [name for name, process in running.items() if process.wait()]
    print(f"both runs: {time.perf_counter() - begun:.0f} s")
    if failed:
        sys.exit(f"mini.py: failed: {', '.join(failed)}")
    apart = {name: compare(name, given.out / name) for name in RUNS}
    far = [name for name in RUNS if apart[name] > TOLERANCE[name]]
    if far and not given.cpu_dry_run:
        sys.exit(f"mini.py: {far[0]}: Last or Avg differ by more than {TOLERANCE[far[0]]} points")


def compare(name: str, folder: Path) -> float:
    """Print both matrices; returns the larger difference of Last and Avg."""
    here = json.loads((folder / "matrix.json").read_text())
    there = json.loads((HERE / "cpu" / f"{name}.json").read_text())
    print(f"\n{name}: GPU (CPU)")
    for row, other in zip(here["matrix"], there["matrix"], strict=True):
        cells = zip(row, other, strict=True)
        print("  ".join("-" if a is None else f"{a:6.2f} ({b:6.2f})" for a, b in cells))
    apart = [abs(here[key] - there[key]) for key in ("last", "avg")]
    for key in ("last", "avg"):
        print(f"{key}: {here[key]:.2f} ({there[key]:.2f})")
    return max(apart)


if __name__ == "__main__":
    main()
