"""The steps from the base model to centralised training in every setting of a sweep, as Markdown.

    .venv/bin/python benchmarks/gap.py runs/comparison disco_lda [--without Flickr30k]

A step is the mean over seeds of the difference in Last between two methods with the same seed, with its
sample standard deviation; docs/metrics.md says what each step means. A dash: not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from command import ended, options

from fcit.report.groups import Group, group_runs, spread
from fcit.report.run_data import read_runs
from fcit.report.tables import format_spread
from fcit.types import FcitError


def steps(method: str) -> list[tuple[str, str]]:
    """What each step goes from and to."""
    way = ["zeroshot", "finetune", method, "joint", "individual", "individual_central", "multitask"]
    return [*pairwise(way), ("joint", "multitask")]


def lasts(group: Group, method: str, without: Sequence[str]) -> dict[int, float]:
    """Last of a method by seed, over all datasets but some: of its usual configuration."""
    entries = (entry for entry in group.entries if entry.first.method == method)
    runs = [run for entry in entries if not entry.variant for run in entry.runs]
    found: dict[int, float] = {}
    for run in (run for run in runs if not run.unfinished):
        row = run.matrix[-1] if run.matrix else [run.zero_shot[name] for name in run.datasets]
        kept = zip(run.datasets, row, strict=True)
        found[run.seed] = fmean(value or 0.0 for name, value in kept if name not in without)
    return found


def table(folder: Path, method: str, without: Sequence[str] = ()) -> list[str]:
    """The lines of the table. Raises FcitError where the folder has no runs of the method, or none on
    a dataset that is to be left out."""
    runs = read_runs([folder])
    if unknown := sorted(set(without) - {name for run in runs for name in run.datasets}):
        raise FcitError(f"--without: {folder} has no run on {unknown[0]}")
    if not any(run.method == method for run in runs):
        raise FcitError(f"{folder}: has no run of {method}")
    groups = group_runs(runs)
    lines = [
        f"| from | to | {' | '.join(group.setting for group in groups)} |",
        f"|---|---|{'---:|' * len(groups)}",
    ]
    for one, other in steps(method):
        cells = []
        for group in groups:
            before, after = (lasts(group, name, without) for name in (one, other))
            moved = spread(after[seed] - before[seed] for seed in before if seed in after)
            cells.append(format_spread(moved, 1, "+"))
        lines.append(f"| {one} | {other} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print the table."""
    parser = options(__doc__)
    parser.add_argument("runs", type=Path, help="the folder of a sweep")
    parser.add_argument("method", help="the method in the middle")
    parser.add_argument("--without", nargs="+", default=(), help="datasets to leave out of Last")
    given = parser.parse_args()
    print("\n".join(table(given.runs, given.method, given.without)))


if __name__ == "__main__":
    ended(main)
