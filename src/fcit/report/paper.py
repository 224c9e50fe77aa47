"""The table of a paper: methods as rows, every setting's Last and Avg as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fcit.report.group import Entry, Group, beta_text, spread
from fcit.report.sheet import MARK, Cell, Line, Sheet, figure
from fcit.report.significance import LEVEL, Tests
from fcit.report.tables import name

FIELDS = (("last", "Last"), ("avg", "Avg"))


def papers(groups: Sequence[Group], tests: Mapping[str, Tests]) -> list[Sheet]:
    """One sheet for all groups over the same datasets with the same scoring, in order of appearance.

    tests: what `significance` found, by the group's slug.
    """
    found: dict[tuple[frozenset[str], str], list[Group]] = {}
    for group in groups:
        found.setdefault((frozenset(group.datasets), group.scoring), []).append(group)
    return [_sheet(members, tests) for members in found.values()]


def _sheet(groups: Sequence[Group], tests: Mapping[str, Tests]) -> Sheet:
    labels = dict.fromkeys(entry.label for group in groups for entry in group.learners)
    apart = dict.fromkeys(
        entry.label for group in groups for entry in group.entries if entry.reference
    )
    tables = [_columns(group, tests.get(group.slug)) for group in groups]
    dash = tuple(Cell("–") for _ in FIELDS)
    lines = [
        Line(
            _label(groups, label),
            tuple(cell for table in tables for cell in table.get(label, dash)),
            label in apart,
        )
        for label in (*labels, *apart)
    ]
    settings = ", ".join(dict.fromkeys(group.setting for group in groups))
    notes = [
        "Last: mean accuracy over all datasets after the final stage, %. Avg: mean over stages of the "
        "mean over the datasets seen so far, %. Mean ± sample standard deviation over seeds.",
        "Bold: the best of the finished learning methods; underlined: the second of three or more. "
        "Points of reference do not compete, nor do methods with fewer seeds than two others have.",
    ]
    if any(tests[group.slug].level for group in groups if group.slug in tests):
        notes.append(
            f"{MARK}: Last is not significantly below the best (paired bootstrap over test samples, "
            f"p ≥ {LEVEL:g})."
        )
    return Sheet(
        f"{settings}: {len(groups[0].datasets)} datasets, {groups[0].scoring} scoring",
        "Method",
        tuple((f"{group.setting}, β {beta_text(group.beta)}", len(FIELDS)) for group in groups),
        tuple(title for _ in groups for _, title in FIELDS),
        tuple(lines),
        tuple(notes),
    )


def _columns(group: Group, tests: Tests | None) -> dict[str, tuple[Cell, ...]]:
    """A group's cells by the label of their row."""
    values = {
        entry.label: [spread(getattr(run, field) for run in entry.runs) for field, _ in FIELDS]
        for entry in group.entries
    }
    contest = [entry.label for entry in group.contest]
    ranks: list[list[float]] = []
    for at in range(len(FIELDS)):
        known = {round(one.mean, 2) for label in contest if (one := values[label][at])}
        ranks.append(sorted(known, reverse=True))
    level = tests.level if tests else frozenset[str]()

    def cell(label: str, at: int) -> Cell:
        value = values[label][at]
        place = ranks[at].index(round(value.mean, 2)) if value and label in contest else 9
        return Cell(
            figure(value),
            best=place == 0 and len(contest) > 1,
            second=place == 1 and len(contest) > 2,
            mark=FIELDS[at][0] == "last" and label in level,
            figure=value,
        )

    return {label: tuple(cell(label, at) for at in range(len(FIELDS))) for label in values}


def _label(groups: Sequence[Group], label: str) -> str:
    """The label, with a word where a run of it is not finished."""
    entries: list[Entry] = [e for group in groups for e in group.entries if e.label == label]
    return next((name(entry) for entry in entries if entry.unfinished), label)
