"""Line, dot and bar charts of a group: accuracy, forgetting, traffic and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

from fcit.report.groups import Entry, Group, Spread, mean, spread
from fcit.report.run_data import RunData
from fcit.report.style import LINE, PAPER, QUIET, legend, new_figure, shorten, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled()
def curves(group: Group) -> Figure:
    """Mean accuracy over the datasets seen so far, after every stage: one line per method."""
    seen = _seen(group)
    stages = list(range(1, len(seen) + 1))
    figure = new_figure(7.0, 3.9)
    axes = figure.add_subplot()
    for entry in group.entries:
        points = _curve(entry, seen)
        at = stages[: len(points)]
        means = [point.mean for point in points]
        axes.plot(
            at,
            means,
            label=entry.label,
            color=entry.colour,
            marker=entry.marker,
            linestyle=(0, (4, 2)) if entry.reference else "-",
            linewidth=1.4 if entry.reference else 2.2,
            clip_on=False,
            markersize=4 if entry.reference else 5.5,
        )
        deviations = [point.deviation or 0.0 for point in points]
        if any(deviations):
            low = [m - d for m, d in zip(means, deviations, strict=True)]
            high = [m + d for m, d in zip(means, deviations, strict=True)]
            axes.fill_between(at, low, high, color=entry.colour, alpha=0.15, linewidth=0)
    levels = {"base model, untrained": ("zero_shot", "--"), "chance": ("chance", ":")}
    if any(entry.first.method == "zeroshot" for entry in group.entries):
        del levels["base model, untrained"]  # it is drawn already, as a method
    for label, (field, dashes) in levels.items():
        by_dataset = group.mean_by_dataset(field)
        line = [mean(by_dataset.get(name) for name in names) for names in seen]
        if any(value is not None for value in line):
            points = [float("nan") if value is None else value for value in line]
            axes.plot(stages, points, label=label, color=QUIET, linewidth=1.0, linestyle=dashes)
    axes.set_xticks(stages)
    axes.set(xlabel="after stage", ylabel="mean accuracy over seen datasets, %", ylim=(0, 100))
    axes.grid(axis="y")
    legend(figure, axes)
    return figure


@styled()
def final_accuracy(group: Group) -> Figure:
    """Accuracy of every dataset after the final stage: one mark per method, chance as a line."""
    names, chance = group.datasets, group.mean_by_dataset("chance")
    figure = new_figure(5.7, 1.5 + 0.33 * len(names))
    axes = figure.add_subplot()
    axes.hlines(range(len(names)), 0, 100, color=LINE, linewidth=0.8)
    rows = [y for y, name in enumerate(names) if name in chance]
    axes.scatter(
        [chance[names[y]] for y in rows],
        rows,
        marker="|",
        s=160,
        color=QUIET,
        linewidth=1.6,
        label="chance",
    )
    for entry in group.entries:
        last = [_row(run, len(run.matrix) - 1) for run in entry.runs]
        means = {y: mean(row.get(name) for row in last) for y, name in enumerate(names)}
        points = {y: value for y, value in means.items() if value is not None}
        axes.scatter(
            list(points.values()),
            list(points),
            label=entry.name,
            color=entry.colour,
            marker=entry.marker,
            s=34 if entry.reference else 64,
            zorder=3 if entry.reference else 4,
            edgecolor=PAPER,
            linewidth=0.8,
        )
    axes.set_yticks(range(len(names)), [shorten(name) for name in names])
    axes.set(xlabel="accuracy after the final stage, %", xlim=(-1.5, 101.5))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    legend(figure, axes)
    return figure


@styled()
def forgetting(group: Group) -> Figure:
    """Best minus last accuracy of every dataset, in points: one bar per method."""
    entries = [entry for entry in group.learners if any(run.forgetting for run in entry.runs)]
    measured = {name for entry in entries for run in entry.runs for name in run.forgetting}
    names = [name for name in group.datasets if name in measured]
    width = 0.8 / max(len(entries), 1)
    figure = new_figure(5.7, 3.9)
    axes = figure.add_subplot()
    for number, entry in enumerate(entries):
        values = [spread(run.forgetting.get(name) for run in entry.runs) for name in names]
        error = [value.deviation or 0.0 if value else 0.0 for value in values]
        axes.bar(
            [x - 0.4 + width * (number + 0.5) for x in range(len(names))],
            [value.mean if value else 0.0 for value in values],
            width=width * 0.9,
            label=entry.name,
            color=entry.colour,
            yerr=error if any(error) else None,
            error_kw={"ecolor": QUIET, "elinewidth": 1},
        )
    axes.axhline(0, color=QUIET, linewidth=0.8)
    axes.set_xticks(range(len(names)), [shorten(name) for name in names])
    for label in axes.get_xticklabels():
        label.set(rotation=30, ha="right", rotation_mode="anchor")
    low, high = axes.get_ylim()
    axes.set(ylabel="forgetting, points", ylim=(min(low, 0.0), max(high, 5.0)))
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    legend(figure, axes)
    return figure


@styled()
def traffic(group: Group) -> Figure:
    """Bytes to and from a client (mean of the round's clients) and seconds, round by round."""
    panels = (
        ("sent to a client", "MB", lambda row: fmean(row.bytes_down or (0,)) / 1e6),
        ("received from a client", "MB", lambda row: fmean(row.bytes_up or (0,)) / 1e6),
        ("time", "seconds per round", lambda row: row.seconds),
    )
    logged = [entry for entry in group.learners or group.entries if entry.first.rounds]
    rounds = logged[0].first.rounds if logged else ()
    figure = new_figure(10.4, 3.1)
    boxes = figure.subplots(1, 3)
    for axes, (title, unit, value_of) in zip(boxes, panels, strict=True):
        lines = [[value_of(row) for row in entry.first.rounds] for entry in logged]
        for entry, values in zip(logged, lines, strict=True):
            axes.plot(
                range(1, len(values) + 1),
                values,
                label=entry.label,
                color=entry.colour,
                marker=entry.marker if len(values) == 1 else None,
                linewidth=1.6,
            )
        for at, (before, after) in enumerate(pairwise(rounds)):
            if before.stage != after.stage:
                axes.axvline(at + 1.5, color=LINE, linewidth=0.7, zorder=0)
        most = max((value for values in lines for value in values), default=0.0)
        axes.set(title=title, xlabel="round", ylabel=unit, ylim=(0, 1.08 * most or 1.0))
        axes.grid(axis="y")
        axes.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = boxes[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 6))
    return figure


def _seen(group: Group) -> list[tuple[str, ...]]:
    """The datasets seen after every stage, from the entry with the most stages."""
    names = group.longest.first.datasets
    seen = [
        tuple(name for name, cell in zip(names, row, strict=True) if cell is not None)
        for row in group.longest.matrix
    ]
    return seen or [group.datasets]


def _curve(entry: Entry, seen: Sequence[tuple[str, ...]]) -> list[Spread]:
    """An entry's mean accuracy over seen datasets by stage; a reference point's row counts for all."""
    points: list[Spread] = []
    for stage, names in enumerate(seen):
        rows = [_row(run, stage) for run in entry.runs]
        point = spread(mean(row.get(name) for name in names) for row in rows)
        if point is None:
            break
        points.append(point)
    return points


def _row(run: RunData, stage: int) -> Mapping[str, float]:
    """Accuracy by dataset after a stage (a reference point's only row); {} where there is none."""
    if not run.matrix and run.method == "zeroshot":
        return run.zero_shot
    at = len(run.matrix) - 1 if run.reference else stage
    if not 0 <= at < len(run.matrix):
        return {}
    cells = zip(run.datasets, run.matrix[at], strict=True)
    return {name: cell for name, cell in cells if cell is not None}
