"""The mini suite's figures: run what is missing, check every target, print the tables of docs/mini.md.

    .venv/bin/python benchmarks/mini.py [--plan task-hom/tiny/0,1,2 ...] [--jobs 2] [--out runs/mini]

Runs that were finished with the same recipe, data and mini model are read, interrupted ones continue.
Tables (mean and sample standard deviation over seeds) and the verdict on every target go to standard
output, progress to standard error. `--tables` runs nothing. Without `--methods`, DISCO, finetune and
the reference points run; other finished runs are shown as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from measures import (
    METHODS,
    POINTS,
    REFERENCES,
    USUAL,
    Key,
    Measured,
    Runs,
    datasets_table,
    measure,
    methods_table,
)
from targets import targets

from fcit.files import write_json
from fcit.recipe.sections import SIZES
from fcit.runs import sweep
from fcit.types import FcitError
from fcit.watch import Terminal

RECIPES = Path(__file__).parents[1] / "recipes" / "mini"
PLAN = (
    "task-hom/tiny/0,1,2",
    "task-hom/small/0",
    "cap-hom/tiny/0",
    "task-het/tiny/0",
    "cap-het/tiny/0",
)


class Benchmark:
    """The folder of the runs, and how to run them."""

    def __init__(self, out: Path, changes: Sequence[str]):
        self.out, self.changes = out, tuple(changes)

    def runs(self, keys: Sequence[Key]) -> list[sweep.Run]:
        """The runs: recipes of their settings, with the plan's changes."""
        return [
            sweep.Run(
                key.name,
                key.method,
                key.seed,
                RECIPES / f"{key.setting}.toml",
                (*self.changes, f'data.size="{key.size}"', f"seed={key.seed}"),
                key.folder(self.out),
            )
            for key in keys
        ]

    def read(self, keys: Sequence[Key]) -> list[Measured]:
        """The figures of the finished runs."""
        found = zip(keys, sweep.survey(self.runs(keys)), strict=True)
        return [
            measure(key, status.run.folder, sweep.clock(status.run))
            for key, status in found
            if status.finished
        ]


def keys(plan: Sequence[str], methods: Sequence[str]) -> list[Key]:
    """The runs of a plan of SETTING/SIZE/SEEDS. Raises FcitError on a word of another form.

    A heterogeneous setting uses the reference points of the homogeneous one if the plan has it.
    """
    parts: list[tuple[str, str, list[int]]] = []
    for word in plan:
        try:
            setting, size, seeds = word.split("/")
            parts.append((setting, size, [int(seed) for seed in seeds.split(",")]))
        except ValueError:
            raise FcitError(f"--plan {word}: write SETTING/SIZE/SEEDS, e.g. {PLAN[0]}") from None
        if not (RECIPES / f"{setting}.toml").is_file():
            raise FcitError(f"--plan {word}: no recipe {RECIPES / setting}.toml")
        if size not in SIZES:
            raise FcitError(f"--plan {word}: no size {size!r}; there are {', '.join(SIZES)}")
    places = {(setting, size, seed) for setting, size, seeds in parts for seed in seeds}
    found = [
        Key(setting, size, seed, method)
        for setting, size, seeds in parts
        for seed in seeds
        for method in methods
        if method not in POINTS or (REFERENCES.get(setting), size, seed) not in places
    ]
    return list(dict.fromkeys(found))


def show(runs: Runs, missing: Sequence[Key]) -> None:
    """Print tables and verdicts."""
    for setting, size in runs.groups():
        print(f"### {setting}, {size}\n\n{methods_table(runs, setting, size)}\n")
        print(f"{datasets_table(runs, setting, size)}\n")
    print("### Targets\n\n```")
    for target in targets(runs):
        print(target.line())
    for key in missing:
        print(f"----  {key}: not run")
    print("```")


def main() -> None:
    """Run what is missing and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--plan", nargs="+", default=PLAN, metavar="SETTING/SIZE/SEEDS", help="what to run")
    add("--methods", nargs="+", choices=METHODS, help="methods of these runs")
    add("--out", type=Path, default=Path("runs") / "mini", help="the runs' folder [runs/mini]")
    add("--jobs", type=int, default=1, help="runs at a time, each with one worker [1]")
    add(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="KEY=VALUE",
        help="change any recipe key",
    )
    add("--tables", action="store_true", help="run nothing, show the finished runs")
    add("--json", type=Path, metavar="FILE", help="also write figures and verdicts here")
    given = parser.parse_args()
    if given.jobs < 1:
        parser.error("--jobs: at least 1")
    bench = Benchmark(given.out, given.changes)
    failed: list[sweep.Run] = []
    try:
        wanted = keys(given.plan, given.methods or USUAL)
        if not given.tables:
            failed = sweep.run(bench.runs(wanted), given.jobs, Terminal())
        runs = Runs(bench.read(keys(given.plan, given.methods or METHODS)))
        have = {one.key for one in runs.all}
        show(runs, [key for key in wanted if key not in have])
        if given.json:
            verdicts = [asdict(target) for target in targets(runs)]
            write_json(given.json, {"runs": [asdict(one) for one in runs.all], "targets": verdicts})
    except FcitError as error:
        parser.exit(2, f"mini.py: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "mini.py: stopped; the same command goes on from there\n")
    parser.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
