"""The methods' table: a summary of every run, and the table as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from fcit.benchmark import metrics
from fcit.report.group import Entry, Group, Spread, beta_text, spread
from fcit.report.read import Run
from fcit.report.sheet import figure, md, plain, tex, tex_number


@dataclass(frozen=True)
class Summary:
    """One run in figures (percent, and points of forgetting); None where it was not measured."""

    method: str
    setting: str
    beta: float | None
    seed: int
    scoring: str
    last: float | None
    avg: float | None
    forgetting: float | None
    backward: float | None
    zero_shot: float | None
    chance: float | None
    routing: float | None
    ahead: float | None
    transfer: float | None
    general: float | None
    unfinished: bool


@dataclass(frozen=True)
class Column:
    """A column of the table: `better` is 1 where more is better, -1 where less is, 0 if neither."""

    field: str
    title: str
    better: int
    meaning: str


COLUMNS = (
    Column("last", "Last", 1, "mean accuracy over all datasets after the final stage, %"),
    Column("avg", "Avg", 1, "mean over stages of the mean over the datasets seen so far, %"),
    Column("forgetting", "Forgetting", -1, "best minus last accuracy, mean over datasets, points"),
    Column(
        "backward", "Backward", 1, "last minus just-learned accuracy on earlier datasets, points"
    ),
    Column("routing", "Routing", 1, "prompts that mostly get a subspace of their own dataset, %"),
    Column("ahead", "Ahead", 1, "accuracy just before a dataset is first learned, mean, %"),
    Column("transfer", "Transfer", 1, "Ahead minus zero-shot on the same datasets, points"),
    Column("general", "General", 1, "general questions: accuracy after minus before, points"),
    Column(
        "zero_shot", "Zero-shot", 0, "the base model before any training, mean over datasets, %"
    ),
    Column("chance", "Chance", 0, "the best constant answer, mean over datasets, %"),
)


@dataclass(frozen=True)
class Row:
    """One method's line of a group's table: a spread for every column, and which are best."""

    entry: Entry
    seeds: tuple[int, ...]
    values: Mapping[str, Spread | None]
    best: frozenset[str]


def summarise(run: Run) -> Summary:
    """A run's line of figures."""
    single = run.reference or len(run.matrix) < 2
    return Summary(
        method=run.method,
        setting=run.setting,
        beta=run.beta,
        seed=run.seed,
        scoring=run.scoring,
        last=run.last,
        avg=run.avg,
        forgetting=None if single else _mean(run.forgetting),
        backward=None if single else metrics.backward_transfer(run.matrix),
        zero_shot=_mean(run.zero_shot),
        chance=_mean(run.chance),
        routing=None if run.reference else _mean(run.routing),
        ahead=_mean(run.ahead),
        transfer=_mean(
            {d: x - run.zero_shot[d] for d, x in run.ahead.items() if d in run.zero_shot}
        ),
        general=_gain(run.general),
        unfinished=run.unfinished,
    )


def table(group: Group) -> list[Row]:
    """The group's table: means over seeds; the best of the finished learning methods is marked."""
    rows: list[Row] = []
    for entry in group.entries:
        lines = [summarise(run) for run in entry.runs]
        values = {
            column.field: spread(getattr(line, column.field) for line in lines)
            for column in COLUMNS
        }
        rows.append(Row(entry, tuple(run.seed for run in entry.runs), values, frozenset()))
    competing = {entry.slug for entry in group.contest}
    contest = [row for row in rows if row.entry.slug in competing]
    best: dict[int, set[str]] = {}
    for column in COLUMNS:
        shown = {id(row): _rounded(row.values[column.field]) for row in contest}
        known = [value for value in shown.values() if value is not None]
        if not column.better or len(known) < 2:
            continue
        top = max(known) if column.better > 0 else min(known)
        for row in contest:
            if shown[id(row)] == top:
                best.setdefault(id(row), set()).add(column.field)
    return [Row(row.entry, row.seeds, row.values, frozenset(best.get(id(row), ()))) for row in rows]


def columns(rows: Sequence[Row]) -> list[Column]:
    """The columns in which at least one row has a value."""
    return [column for column in COLUMNS if any(row.values[column.field] for row in rows)]


def cell(row: Row, column: Column) -> str:
    """A value as it is printed everywhere: two decimals, ± the spread over repetitions.

    What only gives context (zero-shot, chance) is printed without its spread; the CSV has it.
    """
    value = row.values[column.field]
    return figure(value if column.better or not value else Spread(value.mean))


def markdown(groups: Sequence[Group]) -> str:
    """The tables as Markdown, one section a group."""
    parts: list[str] = []
    for group in groups:
        rows = table(group)
        shown = columns(rows)
        lines = [
            "| " + " | ".join(["Method", *(c.title for c in shown), "Seeds"]) + " |",
            "|" + "---|" + "---:|" * len(shown) + "---|",
        ]
        for row in rows:
            cells = [md(name(row.entry))]
            for column in shown:
                text = cell(row, column)
                cells.append(f"**{text}**" if column.field in row.best else text)
            lines.append("| " + " | ".join([*cells, seeds(row)]) + " |")
        notes = [f"* {c.title}: {c.meaning}." for c in shown]
        parts.append("\n".join([f"## {md(group.title)}", "", *lines, "", *notes]))
    return "\n\n".join(parts) + "\n"


def to_csv(groups: Sequence[Group]) -> str:
    """The tables as one CSV: a line a method and group, means and standard deviations apart."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = [part for c in COLUMNS for part in (c.field, f"{c.field}_sd")]
    head = ["setting", "beta", "scoring", "datasets", "method", "seeds", "unfinished"]
    writer.writerow([*head, *fields])
    for group in groups:
        for row in table(group):
            line: list[object] = [
                group.setting,
                "" if group.beta is None else group.beta,
                group.scoring,
                len(group.datasets),
                row.entry.label,
                " ".join(map(str, row.seeds)),
                "yes" if row.entry.unfinished else "no",
            ]
            for column in COLUMNS:
                value = row.values[column.field]
                line.append("" if value is None else f"{value.mean:.4f}")
                deviation = value.deviation if value else None
                line.append("" if deviation is None else f"{deviation:.4f}")
            writer.writerow([plain(part) for part in line])
    return out.getvalue()


def latex(groups: Sequence[Group]) -> str:
    """The tables as LaTeX, one tabular a group."""
    parts = ["% needs \\usepackage{booktabs}"]
    for group in groups:
        rows = table(group)
        shown = columns(rows)
        lines = [
            f"% {tex(group.title)}",
            f"\\begin{{tabular}}{{l{'r' * len(shown)}}}",
            "\\toprule",
            " & ".join(["Method", *(tex(c.title) for c in shown)]) + " \\\\",
            "\\midrule",
        ]
        for row in rows:
            cells = [tex(name(row.entry))]
            for column in shown:
                text = tex_number(cell(row, column))
                cells.append(f"\\textbf{{{text}}}" if column.field in row.best else text)
            lines.append(" & ".join(cells) + " \\\\")
        parts.append("\n".join([*lines, "\\bottomrule", "\\end{tabular}"]))
    return "\n\n".join(parts) + "\n"


def name(entry: Entry) -> str:
    """An entry's label, with a word when it is not finished."""
    return f"{entry.label} ({state(entry)})" if entry.unfinished else entry.label


def state(entry: Entry) -> str:
    """How far an unfinished entry came."""
    run = entry.first
    return f"unfinished: {len(run.matrix)} of {max(len(run.stages), 1)} stages"


def seeds(row: Row) -> str:
    """The seeds of a row's runs."""
    return ", ".join(map(str, row.seeds))


def heading(group: Group) -> str:
    """What a group's runs have in common, in a few words."""
    return f"{group.setting} · β = {beta_text(group.beta)} · {group.scoring} scoring"


def _mean(values: Mapping[str, float]) -> float | None:
    return fmean(values.values()) if values else None


def _gain(general: Mapping[str, float]) -> float | None:
    """After minus before, where both were measured."""
    known = "before" in general and "after" in general
    return general["after"] - general["before"] if known else None


def _rounded(value: Spread | None) -> float | None:
    return None if value is None else round(value.mean, 2)
