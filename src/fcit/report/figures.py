"""Figures of accuracy, one function each; every function returns a figure that owns its axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from fcit.report import paint
from fcit.report.group import Entry, Group, Spread, spread
from fcit.report.read import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANCE = {"color": paint.QUIET, "linewidth": 1.0, "linestyle": ":"}
BASE = {"color": paint.QUIET, "linewidth": 1.0, "linestyle": "--"}


def accuracy_heat_map(entry: Entry) -> Figure:
    """Accuracy of every dataset (x) after every stage (y), in percent; mean over seeds."""
    rows = [f"{at + 1} {_stage(entry.first, at)}" for at in range(len(entry.matrix))]
    with paint.style():
        return paint.heat_map(
            entry.matrix,
            entry.first.datasets,
            rows,
            paint.ACCURACY,
            (0.0, 100.0),
            ".1f",
            "accuracy, %",
            "dataset",
            "after stage",
        )


def curves(group: Group) -> Figure:
    """Mean accuracy over the datasets seen so far, after every stage: one line a method."""
    seen = _seen(group)
    stages = list(range(1, len(seen) + 1))
    with paint.style():
        figure = paint.sheet(7.0, 3.9)
        axes = figure.add_subplot()
        for entry in group.entries:
            points = _curve(entry, seen)
            at = stages[: len(points)]
            means = [point.mean for point in points]
            dashes = (0, (4, 2)) if entry.reference else "-"
            axes.plot(
                at,
                means,
                label=entry.label,
                color=entry.colour,
                marker=entry.marker,
                linestyle=dashes,
                linewidth=1.4 if entry.reference else 2.2,
                clip_on=False,
                markersize=4 if entry.reference else 5.5,
            )
            spreads = [point.deviation or 0.0 for point in points]
            if any(spreads):
                low = [m - s for m, s in zip(means, spreads, strict=True)]
                high = [m + s for m, s in zip(means, spreads, strict=True)]
                axes.fill_between(at, low, high, color=entry.colour, alpha=0.15, linewidth=0)
        for label, level, look in (
            ("base model, untrained", group.level("zero_shot"), BASE),
            ("chance", group.level("chance"), CHANCE),
        ):
            if label != "chance" and any(e.first.method == "zeroshot" for e in group.entries):
                continue
            line = [_over(level, names) for names in seen]
            if any(value is not None for value in line):
                points = [float("nan") if value is None else value for value in line]
                axes.plot(stages, points, label=label, **look)
        axes.set_xticks(stages)
        axes.set(xlabel="after stage", ylabel="mean accuracy over seen datasets, %", ylim=(0, 100))
        axes.grid(axis="y")
        paint.legend(figure, axes)
    return figure


def final_accuracy(group: Group) -> Figure:
    """Accuracy of every dataset after the final stage: one mark a method, chance as a line."""
    names = group.datasets
    chance = group.level("chance")
    with paint.style():
        figure = paint.sheet(5.7, 1.5 + 0.33 * len(names))
        axes = figure.add_subplot()
        axes.hlines(range(len(names)), 0, 100, color=paint.LINE, linewidth=0.8)
        at = [y for y, name in enumerate(names) if name in chance]
        axes.scatter(
            [chance[names[y]] for y in at],
            at,
            marker="|",
            s=160,
            color=paint.QUIET,
            linewidth=1.6,
            label="chance",
        )
        for entry in group.entries:
            known = [
                (y, value.mean) for y, name in enumerate(names) if (value := _last(entry, name))
            ]
            axes.scatter(
                [value for _, value in known],
                [y for y, _ in known],
                label=entry.label,
                color=entry.colour,
                marker=entry.marker,
                s=34 if entry.reference else 64,
                zorder=3 if entry.reference else 4,
                edgecolor=paint.PAPER,
                linewidth=0.8,
            )
        axes.set_yticks(range(len(names)), [paint.short(name) for name in names])
        axes.set(xlabel="accuracy after the final stage, %", xlim=(-1.5, 101.5))
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        paint.legend(figure, axes)
    return figure


def forgetting(group: Group) -> Figure:
    """Best minus last accuracy of every dataset, in points: one bar a method."""
    entries = [entry for entry in group.learners if any(run.forgetting for run in entry.runs)]
    names = [
        one
        for one in group.datasets
        if any(one in run.forgetting for entry in entries for run in entry.runs)
    ]
    wide = 0.8 / max(len(entries), 1)
    with paint.style():
        figure = paint.sheet(5.7, 3.9)
        axes = figure.add_subplot()
        for place, entry in enumerate(entries):
            values = [spread(run.forgetting.get(name) for run in entry.runs) for name in names]
            at = [x - 0.4 + wide * (place + 0.5) for x in range(len(names))]
            error = [value.deviation or 0.0 if value else 0.0 for value in values]
            axes.bar(
                at,
                [value.mean if value else 0.0 for value in values],
                width=wide * 0.9,
                label=entry.label,
                color=entry.colour,
                yerr=error if any(error) else None,
                error_kw={"ecolor": paint.QUIET, "elinewidth": 1},
            )
        axes.axhline(0, color=paint.QUIET, linewidth=0.8)
        axes.set_xticks(range(len(names)), [paint.short(name) for name in names])
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")
        low, high = axes.get_ylim()
        axes.set(ylabel="forgetting, points", ylim=(min(low, 0.0), max(high, 5.0)))
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="y")
        paint.legend(figure, axes)
    return figure


def _stage(run: Run, at: int) -> str:
    return run.stages[at] if at < len(run.stages) else ""


def _seen(group: Group) -> list[tuple[str, ...]]:
    """The datasets seen after every stage, from the run with the most stages."""
    rows = group.pilot.matrix
    names = group.pilot.first.datasets
    seen = [
        tuple(name for name, cell in zip(names, row, strict=True) if cell is not None)
        for row in rows
    ]
    return seen or [group.datasets]


def _curve(entry: Entry, seen: Sequence[tuple[str, ...]]) -> list[Spread]:
    """An entry's mean accuracy over seen datasets by stage (a reference point's row, each time)."""
    points: list[Spread] = []
    for stage, names in enumerate(seen):
        values = [_over(row, names) for run in entry.runs if (row := _row(run, stage))]
        point = spread(values)
        if point is None:
            break
        points.append(point)
    return points


def _row(run: Run, stage: int) -> Mapping[str, float]:
    """Accuracy per dataset after a stage; {} where there is none."""
    if not run.matrix and run.method == "zeroshot":
        return run.zero_shot
    at = len(run.matrix) - 1 if run.reference else stage
    if not 0 <= at < len(run.matrix):
        return {}
    cells = zip(run.datasets, run.matrix[at], strict=True)
    return {name: cell for name, cell in cells if cell is not None}


def _over(values: Mapping[str, float], names: Sequence[str]) -> float | None:
    known = [values[name] for name in names if name in values]
    return fmean(known) if known else None


def _last(entry: Entry, name: str) -> Spread | None:
    rows = [_row(run, len(run.matrix) - 1) for run in entry.runs]
    return spread(row.get(name) for row in rows)
