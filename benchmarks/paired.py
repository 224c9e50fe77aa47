"""Two methods of a sweep, compared by seeds: differences in Last, Avg, forgetting and bytes, as Markdown.

    .venv/bin/python benchmarks/paired.py runs/comparison disco_lda disco
    .venv/bin/python benchmarks/paired.py runs/comparison disco_lda disco --gap individual joint

A difference is that of two runs of one setting with the same seed. Its interval is Student's t of 95 %
over seeds. Runs that are not finished are left out, and said to be. Bytes are those of all turns, with
tokens, as shares of the second method's. --gap says how much of the second method's distance in Last
to the best of some reference points the first one closes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from command import ended, options

from fcit.files import read_json, read_lines
from fcit.report.significance import t_interval
from fcit.rounds.runfolder import RunFolder
from fcit.types import FcitError

MEASURES = ("last", "avg", "forgetting", "routing")


def measured(folder: Path) -> dict[str, float] | None:
    """A finished run's numbers; None where the run is not finished."""
    found = RunFolder(folder)
    if not found.matrix.is_file():
        return None
    table: dict[str, Any] = read_json(found.matrix)
    if table["last"] is None or len(table["matrix"]) < len(table["stages"]):
        return None
    numbers = {key: table[key] for key in ("last", "avg")}
    numbers |= {key: fmean(table[key].values()) for key in ("forgetting", "routing") if table[key]}
    log = folder / "log.jsonl"
    rounds = read_lines(log) if log.exists() else []
    numbers["down"] = sum(sum(row["bytes_down"]) for row in rounds)
    numbers["up"] = sum(sum(row["bytes_up"]) for row in rounds)
    return numbers


def together(
    sweep: Path, methods: Sequence[str]
) -> tuple[dict[str, list[list[dict[str, float]]]], list[str]]:
    """By setting, the numbers of all methods for every seed of the first one that all have finished, and
    a line for every other seed. Raises FcitError naming a method without runs."""
    for method in methods:
        if not any(sweep.glob(f"*/{method}/seed*[0-9]")):
            raise FcitError(f"{sweep}: no runs of {method} (NAME/{method}/seedN)")
    found: dict[str, list[list[dict[str, float]]]] = {}
    left: list[str] = []
    for folder in sorted(sweep.glob(f"*/{methods[0]}/seed*[0-9]")):
        setting = folder.parents[1]
        runs = [run for name in methods if (run := measured(setting / name / folder.name))]
        if len(runs) == len(methods):
            found.setdefault(setting.name, []).append(runs)
        else:
            left.append(f"{setting.name}, {folder.name}: not finished")
    return found, ["", *left] if left else []


def gap_rows(sweep: Path, first: str, second: str, references: Sequence[str]) -> list[str]:
    """One row per setting: mean Last of both methods and of the references over the seeds that all have,
    and the share of the second method's distance to the best reference that the first one closes."""
    settings, left = together(sweep, (first, second, *references))
    rows = []
    for name, seeds in settings.items():
        means = [fmean(run["last"] for run in runs) for runs in zip(*seeds, strict=True)]
        distance = max(means[2:]) - means[1]
        closed = 100 * (means[0] - means[1]) / distance if distance > 0 else None
        share = "none to close" if closed is None else f"{closed:.0f} %"
        shown = " | ".join(f"{value:.2f}" for value in means)
        rows.append(f"| {name} ({len(seeds)}) | {shown} | {distance:+.2f} | {share} |")
    return [*rows, *left]


def compared(sweep: Path, first: str, second: str) -> list[str]:
    """The rows of the table, and a line for every pair that is not finished."""
    settings, left = together(sweep, (first, second))
    rows = []
    for name, pairs in settings.items():
        cells = [f"{name} ({len(pairs)})"]
        for key in MEASURES:
            if any(key not in run for pair in pairs for run in pair):
                cells.append("–")
                continue
            differences = [one[key] - other[key] for one, other in pairs]
            interval = t_interval(differences)
            shown = f" ({interval[0]:+.2f} to {interval[1]:+.2f})" if interval else ""
            means = [fmean(pair[at][key] for pair in pairs) for at in (0, 1)]
            cells.append(f"{means[0]:.2f} - {means[1]:.2f} = {fmean(differences):+.2f}{shown}")
        for key in ("down", "up"):
            whole = sum(other[key] for _, other in pairs)
            share = 100 * sum(one[key] for one, _ in pairs) / whole if whole else None
            cells.append("–" if share is None else f"{share:.1f} %")
        rows.append(f"| {' | '.join(cells)} |")
    return [*rows, *left]


def main() -> None:
    """Print the table."""
    parser = options(__doc__)
    parser.add_argument("sweep", type=Path, help="a sweep's folder: NAME/METHOD/seedN")
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument(
        "--gap", nargs="+", default=[], metavar="REFERENCE", help="reference points"
    )
    given = parser.parse_args()
    if given.gap:
        rows = gap_rows(given.sweep, given.first, given.second, given.gap)
        names = [given.first, given.second, *given.gap]
        print(
            f"Last, percent, over seeds\n\n| setting (seeds) | {' | '.join(names)} | distance | closed |"
        )
        print(f"|---|{'---:|' * len(names)}---:|---:|")
        print("\n".join(rows))
        return
    rows = compared(given.sweep, given.first, given.second)
    print(f"{given.first} - {given.second}, percent, over seeds\n")
    print("| setting (seeds) | Last | Avg | Forgetting | Routing | bytes down | bytes up |")
    print("|---|---|---|---|---|---:|---:|")
    print("\n".join(rows))


if __name__ == "__main__":
    ended(main)
