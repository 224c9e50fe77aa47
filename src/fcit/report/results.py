"""The metrics of a run, and a group's methods with their means over seeds and ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fcit.benchmark import metrics
from fcit.report.groups import Entry, Group, Spread, mean, spread
from fcit.report.run_data import RunData
from fcit.report.tables import format_spread


@dataclass(frozen=True)
class Column:
    """A column of the methods' table."""

    field: str
    title: str
    better: int
    """1 where more is better, -1 where less is, 0 if neither."""
    meaning: str


COLUMNS = (
    Column("last", "Last", 1, "mean accuracy over all datasets after the final stage, % (MFN)"),
    Column("avg", "Avg", 1, "mean over stages of the mean over the datasets seen so far, % (MAA)"),
    Column("learned", "Learned", 1, "accuracy when a dataset was first learned, mean, % (MFT)"),
    Column(
        "forgetting",
        "Forgetting",
        -1,
        "best minus final accuracy, mean over datasets that later stages follow, points",
    ),
    Column(
        "backward",
        "Backward",
        1,
        "final minus just-learned accuracy, mean over datasets that later stages follow, points (BWT)",
    ),
    Column(
        "routing", "Routing", 1, "test prompts mostly routed to a subspace of their own dataset, %"
    ),
    Column("ahead", "Ahead", 1, "accuracy just before a dataset is first learned, mean, %"),
    Column("transfer", "Transfer", 1, "Ahead minus zero-shot on the same datasets, points"),
    Column("general", "General", 1, "general questions: accuracy after minus before, points"),
    Column(
        "zero_shot", "Zero-shot", 0, "the base model before any training, mean over datasets, %"
    ),
    Column("chance", "Chance", 0, "the best constant answer, mean over datasets, %"),
)

FIELDS = tuple(column.field for column in COLUMNS)


@dataclass(frozen=True)
class MethodLine:
    """One method's line of a group's table."""

    entry: Entry
    values: Mapping[str, Spread | None]
    """By the column's field: over the entry's seeds."""
    ranks: Mapping[str, int]
    """By the column's field, 0 for the best, where the entry competes with others."""

    def text(self, column: Column) -> str:
        """A value as it is printed everywhere; columns that only give context show no spread."""
        value = self.values[column.field]
        return format_spread(value if column.better or not value else Spread(value.mean))


def run_results(run: RunData) -> dict[str, float | None]:
    """A run's results by the columns' fields; None where one was not measured."""
    single = run.reference or len(run.matrix) < 2
    zero_shot, general = run.zero_shot, run.general
    gain = {name: run.ahead[name] - zero_shot[name] for name in run.ahead if name in zero_shot}
    both = "before" in general and "after" in general
    return {
        "last": run.last,
        "avg": run.avg,
        "learned": None
        if single
        else mean(metrics.just_learned(run.matrix, run.datasets).values()),
        "forgetting": mean(run.forgetting.values()),
        "backward": None if single else metrics.backward_transfer(run.matrix),
        "routing": None if run.reference else mean(run.routing.values()),
        "ahead": mean(run.ahead.values()),
        "transfer": mean(gain.values()),
        "general": general["after"] - general["before"] if both else None,
        "zero_shot": mean(zero_shot.values()),
        "chance": mean(run.chance.values()),
    }


def method_lines(group: Group) -> list[MethodLine]:
    """The group's table: means over seeds, and ranks among the entries that compete."""
    values: dict[str, dict[str, Spread | None]] = {}
    for entry in group.entries:
        runs = [run_results(run) for run in entry.runs]
        values[entry.slug] = {
            column.field: spread(results[column.field] for results in runs) for column in COLUMNS
        }
    ranks: dict[str, dict[str, int]] = {entry.slug: {} for entry in group.entries}
    for column in COLUMNS:
        shown = {
            entry.slug: round(value.mean, 2)
            for entry in group.contest
            if (value := values[entry.slug][column.field])
        }
        if column.better and len(shown) > 1:
            order = sorted(set(shown.values()), reverse=column.better > 0)
            for slug, value in shown.items():
                ranks[slug][column.field] = order.index(value)
    return [MethodLine(entry, values[entry.slug], ranks[entry.slug]) for entry in group.entries]


def columns(lines: Sequence[MethodLine], fields: Sequence[str] = FIELDS) -> list[Column]:
    """Some columns, without those in which no line has a value."""
    asked = [column for field in fields for column in COLUMNS if column.field == field]
    return [column for column in asked if any(line.values[column.field] for line in lines)]
