"""What the tuning sweep found: the values with the highest Last, and every method's runs, as Markdown.

    .venv/bin/python benchmarks/tuned.py runs/tuning

Exit status 1: a method has runs that are not finished, so nothing is chosen for it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from command import ended, options

from fcit.files import read_json
from fcit.recipe import config as configs
from fcit.recipe.keys import flat
from fcit.rounds.runfolder import RunFolder
from fcit.runs import sweep
from fcit.runs.session import Session
from fcit.types import FcitError
from fcit.watch import Silent

PLAN = Path(__file__).parents[1] / "recipes" / "mini" / "tuning.toml"


@dataclass(frozen=True)
class Tried:
    """One run: what it was tried with, and its accuracies in percent (None: not finished)."""

    values: dict[str, object]
    last: float | None
    avg: float | None


def read(planned: Sequence[sweep.SweepRun]) -> dict[str, list[Tried]]:
    """Those of a sweep's runs that were begun, by method, with the keys in which they differ."""
    tables: dict[str, list[tuple[dict[str, object], Path]]] = defaultdict(list)
    for run in sorted(planned, key=lambda run: run.folder):
        if (file := RunFolder(run.folder).config).is_file():
            config = configs.load_run(file)
            tables[config.method.name].append((flat(configs.to_table(config)), run.folder))
    found: dict[str, list[Tried]] = {}
    for method, runs in tables.items():
        keys = sorted({key for table, _ in runs for key in table})
        differing = [key for key in keys if len({str(table.get(key)) for table, _ in runs}) > 1]
        found[method] = [
            Tried({key: table.get(key) for key in differing}, *accuracies(path))
            for table, path in runs
        ]
    return found


def accuracies(path: Path) -> tuple[float | None, float | None]:
    """A finished run's Last and Avg."""
    session = Session(configs.load_run(RunFolder(path).config), path, Silent())
    if not session.finished:
        return None, None
    matrix = read_json(path / "matrix.json")
    return matrix["last"], matrix["avg"]


def summary(tried: dict[str, list[Tried]], planned: Mapping[str, int]) -> list[str]:
    """A row for every method whose planned runs are all finished: its best values, Last and Avg."""
    rows = ["| method | runs | chosen | Last | Avg |", "|---|---:|---|---:|---:|"]
    for method, runs in sorted(tried.items()):
        done = [run for run in runs if run.last is not None]
        if len(done) < planned[method]:
            continue
        best = max(done, key=lambda run: run.last or 0.0)
        chosen = ", ".join(f"`{key} = {json.dumps(value)}`" for key, value in best.values.items())
        rows.append(f"| {method} | {len(runs)} | {chosen} | {best.last:.2f} | {best.avg:.2f} |")
    return rows


def main() -> None:
    """Print what was chosen, and a table for every method."""
    parser = options(__doc__)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--plan", type=Path, default=PLAN, help="the sweep's file")
    given = parser.parse_args()
    folder: Path = given.sweep
    runs_planned = sweep.read(given.plan, folder)
    if not (tried := read(runs_planned)):
        raise FcitError(f"{folder}: holds no run of {given.plan}; make them with fcit sweep")
    planned = Counter(run.method for run in runs_planned)
    print("\n".join(summary(tried, planned)))
    unfinished = 0
    for method, runs in sorted(tried.items()):
        keys = list(runs[0].values)
        lasts = [run.last for run in runs if run.last is not None]
        best = max(lasts, default=None) if len(lasts) >= planned[method] else None
        unfinished += best is None
        print(f"\n**{method}**, {len(lasts)} of {planned[method]} runs\n")
        print(f"| {' | '.join([*keys, 'Last', 'Avg'])} |")
        print(f"|{'---|' * len(keys)}---:|---:|")
        for run in sorted(runs, key=lambda run: [str(value) for value in run.values.values()]):
            last = "-" if run.last is None else f"{run.last:.2f}"
            last = f"**{last}**" if best is not None and run.last == best else last
            avg = "-" if run.avg is None else f"{run.avg:.2f}"
            print(f"| {' | '.join([*map(str, run.values.values()), last, avg])} |")
    sys.exit(unfinished > 0)


if __name__ == "__main__":
    ended(main)
