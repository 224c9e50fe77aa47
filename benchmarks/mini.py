"""The mini suite's figures: a table by dataset for each setting, and the verdict on every target.

    .venv/bin/python benchmarks/mini.py runs/comparison runs/small

These are the tables of docs/mini.md. The script runs nothing: `fcit sweep` makes the runs, from
recipes/mini/comparison.toml and recipes/mini/small.toml. Means and standard deviations are over seeds.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from command import ended, options
from measures import datasets_table, read
from targets import targets

from fcit.files import write_json


def main() -> None:
    """Print tables and verdicts."""
    parser = options(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or of sweeps")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write figures and verdicts here"
    )
    given = parser.parse_args()
    runs = read(given.runs)
    for setting, size in runs.groups():
        print(f"### {setting}, {size}\n\n{datasets_table(runs, setting, size)}\n")
    found = targets(runs)
    print("\n".join(["### Targets", "", "```", *(target.line() for target in found), "```"]))
    if given.json:
        verdicts = [asdict(target) for target in found]
        write_json(given.json, {"runs": [asdict(one) for one in runs.all], "targets": verdicts})


if __name__ == "__main__":
    ended(main)
