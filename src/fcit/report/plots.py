"""Which figures the page shows of a group, and what it says below them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fcit.report import figures, inside
from fcit.report.group import Entry, Group

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plot:
    """A figure of the page: SVG data URIs for light and dark pages, and its width in CSS pixels."""

    name: str
    title: str
    caption: str
    light: str
    dark: str
    width: int
    entry: Entry | None = None


Draw = Callable[[str, str, str, Callable[[], "Figure"]], Plot]
"""Draws a figure: its file's name, title, caption, and what makes it."""


def accuracy(group: Group, plot: Draw, mean: str) -> list[Plot]:
    """Curves over stages, the final accuracies, and forgetting; `mean` says what a line is of."""
    plots: list[Plot] = []
    if len(group.pilot.matrix) > 1:
        text = (
            "Mean accuracy over all datasets seen so far, after every stage. A line that stays up "
            "remembers; dashed lines are points of reference over the same datasets."
        )
        plots.append(
            plot("curves", "Accuracy as stages arrive", text + mean, lambda: figures.curves(group))
        )
    text = (
        "Every dataset after the final stage, one mark a method. Marks near the upright bar of "
        "chance mean that nothing is left of what was learned, or that nothing was."
    )
    plots.append(
        plot("final", "Where each dataset ends", text, lambda: figures.final_accuracy(group))
    )
    if any(run.forgetting for entry in group.learners for run in entry.runs):
        text = "Best minus last accuracy, in points of percent: short bars forget little." + mean
        plots.append(
            plot("forgetting", "What was forgotten", text, lambda: figures.forgetting(group))
        )
    return plots


def maps(group: Group, plot: Draw) -> list[Plot]:
    """Every method's accuracy matrix."""
    plots: list[Plot] = []
    for entry in group.entries:
        if entry.matrix:
            text = (
                "Read down a column: a dataset's accuracy from the stage that taught it to the end."
            )
            if len(entry.matrix) == 1:
                text = "One row: this point of reference is measured once, after all training."
            text += _whose(entry, mean=True)
            drawn = plot(
                f"accuracy-{entry.slug}",
                f"{entry.label}: stage by dataset",
                text,
                lambda entry=entry: figures.accuracy_heat_map(entry),
            )
            plots.append(replace(drawn, entry=entry))
    return plots


def inner(group: Group, plot: Draw) -> list[Plot]:
    """Likeness of the subspaces' tokens, and which of them answer."""
    plots: list[Plot] = []
    for entry in group.entries:
        run = entry.first
        if run.tokens is not None and run.tokens.values:
            text = (
                "Cosine between the identity tokens of every two subspaces, labelled with what "
                "trained them. Pale off the diagonal: the subspaces are easy to tell apart."
            )
            drawn = plot(
                f"tokens-{entry.slug}",
                f"{entry.label}: identity tokens",
                text + _whose(entry),
                lambda run=run: inside.similarity(run),
            )
            plots.append(replace(drawn, entry=entry))
        shares = {} if run.reference else inside.activation_means(run)
        if len({name for row in shares.values() for name in row}) > 1:
            text = (
                "Mean activation factor of each subspace on each dataset's test prompts after the "
                "final stage. One dark cell a row: prompts find the subspace of their own task."
            )
            drawn = plot(
                f"activation-{entry.slug}",
                f"{entry.label}: who answers what",
                text + _whose(entry),
                lambda run=run, shares=shares: inside.activation(run, shares),
            )
            plots.append(replace(drawn, entry=entry))
    return plots


def clients(group: Group, plot: Draw) -> list[Plot]:
    """Who holds how much."""
    known = [e for e in (*group.learners, *group.entries) if e.first.partition]
    if not known:
        return []
    text = (
        "Training samples of every dataset that each client holds: the smaller β, the more unequal."
    )
    text += f" Taken from {known[0].label}, seed {known[0].first.seed}."
    counts = {name: list(row) for name, row in known[0].first.partition.items()}
    draw = lambda: inside.partition_figure(counts)  # noqa: E731
    return [plot("clients", "Who holds how much", text, draw)]


def traffic(group: Group, plot: Draw) -> list[Plot]:
    """Bytes and seconds a round."""
    if not any(entry.first.rounds for entry in group.entries):
        return []
    text = "Mean megabytes per client and round, and seconds a round; upright lines begin a stage."
    text += " Each method's first seed." if any(len(e.runs) > 1 for e in group.entries) else ""
    return [plot("traffic", "Bytes and seconds", text, lambda: inside.traffic(group))]


def _whose(entry: Entry, mean: bool = False) -> str:
    if len(entry.runs) == 1:
        return " Unfinished run." if entry.unfinished else ""
    seeds = ", ".join(str(run.seed) for run in entry.runs)
    return f" Mean over seeds {seeds}." if mean else f" Seed {entry.first.seed}."
