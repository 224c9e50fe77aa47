"""The README's results table: every method on recipes/mini/task-hom.toml, with what issue 2 asks of it.

    .venv/bin/python benchmarks/task_hom.py [--methods disco finetune ...] [--out runs/task-hom]

Runs that are already in the output folder are read, not run again (delete one to repeat it). Prints
Last, Avg, forgetting, the just-learned mean and how much of it is kept, routing, and seconds of
training and answering together.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import fcit
from fcit import config
from fcit.benchmark import metrics
from fcit.files import read_json, write_json
from fcit.watch import Terminal

ROOT = Path(__file__).parents[1]
METHODS = ("zeroshot", "finetune", "disco", "individual", "multitask")


def measure(method: str, recipe: Path, out: Path, changes: list[str]) -> dict[str, object]:
    """One method's row, from its folder where it is finished."""
    folder, clock = out / method, out / method / "seconds.json"
    if not clock.is_file():
        start = time.monotonic()
        loaded = config.load(recipe, changes, method)
        fcit.run(loaded, folder, resume=folder.is_dir(), watch=Terminal())
        write_json(clock, round(time.monotonic() - start, 1))
    found = fcit.load(folder).results
    row: dict[str, object] = {key: found[key] for key in ("last", "avg")}
    row["forgetting"] = _mean(found["forgetting"].values())
    if len(found["matrix"]) > 1:
        learnt = [value for value in metrics.just_learned(found["matrix"]) if value is not None]
        row["just learned"] = _mean(learnt)
        row["kept %"] = 100 * found["last"] / _mean(learnt)
    if found["routing"]:
        row["routing"] = _mean(found["routing"].values())
    row["seconds"] = read_json(clock)
    return row


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def main() -> None:
    """Run what is missing and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "mini" / "task-hom.toml")
    parser.add_argument("--out", type=Path, default=Path("runs") / "task-hom")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    given = parser.parse_args()
    columns = ("last", "avg", "forgetting", "just learned", "kept %", "routing", "seconds")
    print("| method | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|", flush=True)
    for method in given.methods:
        row = measure(method, given.recipe, given.out, given.changes)
        cells = [f"{row[key]:.2f}" if key in row else "" for key in columns]
        print(f"| {method} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
