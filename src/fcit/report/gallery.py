"""The figures of a report: which ones a group has, and the titles and captions they get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from fcit.report import charts, gap, heatmaps, style
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

    @cached_property
    def svg(self) -> str:
        """The figure as SVG."""
        return style.to_svg(self.figure)

    @property
    def light(self) -> str:
        """The SVG as a data URI, as a light page embeds it."""
        return style.data_uri(self.svg)

    @property
    def dark(self) -> str:
        """The same for a dark page."""
        return style.data_uri(style.to_dark(self.svg))

    @property
    def width(self) -> int:
        """In CSS pixels."""
        return round(float(self.figure.get_size_inches()[0]) * 96)


def accuracy(group: Group) -> Iterator[Picture]:
    """Curves over stages, the final accuracies, and forgetting."""
    several = any(len(entry.runs) > 1 for entry in group.entries)
    mean = " Mean over seeds; the band or line is ± one standard deviation." if several else ""
    if len(group.longest.matrix) > 1:
        text = (
            "Mean accuracy over all datasets seen so far, after every stage. A method that forgets "
            "little stays high; dashed lines are reference points on the same datasets."
        )
        yield Picture("curves", "Accuracy after every stage", text + mean, charts.curves(group))
    text = (
        "Accuracy on every dataset after the final stage, one mark per method. A mark near the "
        "vertical chance bar: the method forgot the dataset or never learned it."
    )
    yield Picture("final", "Final accuracy by dataset", text, charts.final_accuracy(group))
    if any(run.forgetting for entry in group.learners for run in entry.runs):
        text = "Best minus final accuracy, in percentage points. Lower is better." + mean
        yield Picture("forgetting", "Forgetting by dataset", text, charts.forgetting(group))


def taken_apart(group: Group) -> Iterator[Picture]:
    """The steps from the base model to centralised training."""
    if found := gap.rungs(group):
        text = (
            "Last from the base model to training with all data in one place. The coloured end of a bar "
            "is the step from the bar above, in points (hatched: a step down). Beside it stands what the "
            "step changes: a price is what a restriction of the setting costs."
        )
        if any(rung.last.deviation is not None for rung in found):
            text += " Mean over seeds ± one standard deviation."
        yield Picture("gap", "The gap to centralised training", text, gap.gap(found))


def stage_by_stage(group: Group) -> Iterator[Picture]:
    """Every method's accuracy matrix."""
    for entry in group.entries:
        if entry.matrix:
            text = (
                "Each column shows a dataset's accuracy from the stage that trained it to the end."
            )
            if len(entry.matrix) == 1:
                text = "One row: this reference point is measured once, after all training."
            text += f" Mean over seeds {entry.seeds}." if len(entry.runs) > 1 else _which_run(entry)
            title = f"{entry.label}: accuracy by stage"
            figure = heatmaps.accuracy_by_stage(entry)
            yield Picture(f"accuracy-{entry.slug}", title, text, figure, entry)


def subspaces(group: Group) -> Iterator[Picture]:
    """How alike the subspaces' tokens are, and which subspaces answer which dataset."""
    for entry in group.entries:
        run = entry.first
        if run.tokens:
            text = (
                "Cosine similarity between the identity tokens of the subspaces, labelled with the "
                "tasks that trained them. Low values off the diagonal make routing easy."
            ) + _which_run(entry)
            title, figure = f"{entry.label}: identity tokens", heatmaps.token_similarity(run)
            yield Picture(f"tokens-{entry.slug}", title, text, figure, entry)
        means = {} if run.reference else heatmaps.activation_means(run)
        if len({name for row in means.values() for name in row}) > 1:
            text = (
                "Mean activation factor of every subspace on every dataset's test prompts after the "
                "final stage. With good routing each row has one dark cell, at its own task."
            ) + _which_run(entry)
            title, figure = f"{entry.label}: activation by dataset", heatmaps.activation(run, means)
            yield Picture(f"activation-{entry.slug}", title, text, figure, entry)


def clients(group: Group) -> Iterator[Picture]:
    """The clients' shares of the data; bytes and seconds a round."""
    for entry in (*group.learners, *group.entries):
        if entry.first.partition:
            text = (
                "Training samples of every client by dataset; a smaller β makes them more unequal. "
                f"From {entry.label}, seed {entry.first.seed}."
            )
            figure = heatmaps.partition(entry.first.partition)
            yield Picture("clients", "Training samples by client", text, figure)
            break
    if any(entry.first.rounds for entry in group.entries):
        text = "Mean megabytes per client and round, and seconds per round; vertical lines mark stages."
        if any(len(entry.runs) > 1 for entry in group.entries):
            text += " First seed of each method."
        yield Picture("traffic", "Traffic and time", text, charts.traffic(group))


def _which_run(entry: Entry) -> str:
    if len(entry.runs) > 1:
        return f" Seed {entry.first.seed}."
    return " Unfinished run." if entry.unfinished else ""
