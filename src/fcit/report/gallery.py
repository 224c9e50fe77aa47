"""The figures of a report: which ones a group has, and the titles and captions they get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcit.report import charts, heatmaps
from fcit.report.groups import Entry, Group

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure with its file's name, title and caption; `entry` where it is of one method alone."""

    name: str
    title: str
    caption: str
    figure: Figure
    entry: Entry | None = None


def accuracy(group: Group) -> Iterator[Picture]:
    """Curves over stages, the final accuracies, and forgetting."""
    several = any(len(entry.runs) > 1 for entry in group.entries)
    mean = " Mean over seeds; the band or line is ± one standard deviation." if several else ""
    if len(group.longest.matrix) > 1:
        text = (
            "Mean accuracy over all datasets seen so far, after every stage. A line that stays up "
            "remembers; dashed lines are points of reference over the same datasets."
        )
        yield Picture("curves", "Accuracy as stages arrive", text + mean, charts.curves(group))
    text = (
        "Every dataset after the final stage, one mark a method. Marks near the upright bar of "
        "chance mean that nothing is left of what was learned, or that nothing was."
    )
    yield Picture("final", "Where each dataset ends", text, charts.final_accuracy(group))
    if any(run.forgetting for entry in group.learners for run in entry.runs):
        text = "Best minus last accuracy, in points of percent: short bars forget little." + mean
        yield Picture("forgetting", "What was forgotten", text, charts.forgetting(group))


def stage_by_stage(group: Group) -> Iterator[Picture]:
    """Every method's accuracy matrix."""
    for entry in group.entries:
        if entry.matrix:
            text = (
                "Read down a column: a dataset's accuracy from the stage that taught it to the end."
            )
            if len(entry.matrix) == 1:
                text = "One row: this point of reference is measured once, after all training."
            text += f" Mean over seeds {entry.seeds}." if len(entry.runs) > 1 else _which_run(entry)
            title = f"{entry.label}: stage by dataset"
            figure = heatmaps.accuracy_by_stage(entry)
            yield Picture(f"accuracy-{entry.slug}", title, text, figure, entry)


def subspaces(group: Group) -> Iterator[Picture]:
    """How alike the subspaces' tokens are, and which subspaces answer which dataset."""
    for entry in group.entries:
        run = entry.first
        if run.tokens:
            text = (
                "Cosine between the identity tokens of every two subspaces, labelled with what "
                "trained them. Pale off the diagonal: the subspaces are easy to tell apart."
            ) + _which_run(entry)
            title, figure = f"{entry.label}: identity tokens", heatmaps.token_similarity(run)
            yield Picture(f"tokens-{entry.slug}", title, text, figure, entry)
        means = {} if run.reference else heatmaps.activation_means(run)
        if len({name for row in means.values() for name in row}) > 1:
            text = (
                "Mean activation factor of each subspace on each dataset's test prompts after the "
                "final stage. One dark cell a row: prompts find the subspace of their own task."
            ) + _which_run(entry)
            title, figure = f"{entry.label}: who answers what", heatmaps.activation(run, means)
            yield Picture(f"activation-{entry.slug}", title, text, figure, entry)


def clients(group: Group) -> Iterator[Picture]:
    """The clients' shares of the data; bytes and seconds a round."""
    for entry in (*group.learners, *group.entries):
        if entry.first.partition:
            text = (
                "Training samples of every dataset that each client holds: the smaller β, the more "
                f"unequal. Taken from {entry.label}, seed {entry.first.seed}."
            )
            figure = heatmaps.partition(entry.first.partition)
            yield Picture("clients", "Who holds how much", text, figure)
            break
    if any(entry.first.rounds for entry in group.entries):
        text = (
            "Mean megabytes per client and round, and seconds a round; upright lines begin a stage."
        )
        if any(len(entry.runs) > 1 for entry in group.entries):
            text += " Each method's first seed."
        yield Picture("traffic", "Bytes and seconds", text, charts.traffic(group))


def _which_run(entry: Entry) -> str:
    if len(entry.runs) > 1:
        return f" Seed {entry.first.seed}."
    return " Unfinished run." if entry.unfinished else ""
