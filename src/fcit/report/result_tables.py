"""The tables of results: one per setting with every metric; a paper's with all settings side by side."""

from collections.abc import Mapping, Sequence

from fcit.report.groups import Group, beta_text
from fcit.report.results import COLUMNS, columns, method_lines
from fcit.report.significance import LEVEL, Tests
from fcit.report.tables import MARK, Cell, Line, Table, csv_numbers, csv_text

_PAPER = [column for column in COLUMNS if column.field in ("last", "avg")]


def setting_table(group: Group) -> Table:
    """A group's methods with every metric that was measured."""
    lines = method_lines(group)
    shown = columns(lines)
    rows: list[Line] = []
    for line in lines:
        cells = [
            Cell(
                line.text(column),
                line.ranks.get(column.field) == 0,
                value=line.values[column.field],
            )
            for column in shown
        ]
        cells.append(Cell(line.entry.seeds))
        rows.append(Line(line.entry.name, tuple(cells), line.entry.reference))
    titles = (*(column.title for column in shown), "Seeds")
    notes = tuple(f"{column.title}: {column.meaning}." for column in shown)
    return Table(group.title, titles, tuple(rows), notes)


def settings_csv(groups: Sequence[Group]) -> str:
    """Every group's table in one CSV for programs: a line per method and group, always all columns."""
    fields = [name for column in COLUMNS for name in (column.field, f"{column.field}_sd")]
    head = ["setting", "beta", "scoring", "datasets", "method", "seeds", "unfinished"]
    rows = [[*head, *fields]]
    for group in groups:
        beta = "" if group.beta is None else str(group.beta)
        about = [group.setting, beta, group.scoring, str(len(group.datasets))]
        for line in method_lines(group):
            entry = line.entry
            seeds = " ".join(str(run.seed) for run in entry.runs)
            row = [*about, entry.label, seeds, "yes" if entry.unfinished else "no"]
            rows.append(
                row + [text for value in line.values.values() for text in csv_numbers(value)]
            )
    return csv_text(rows)


def cost_table(group: Group) -> Table:
    """What the clients of each method's first run received and sent, and the time it took."""
    lines: list[Line] = []
    for entry in group.entries:
        rounds = entry.first.rounds
        down = sum(sum(row.bytes_down) for row in rounds) / 1e6
        up = sum(sum(row.bytes_up) for row in rounds) / 1e6
        turns, minutes = (
            sum(len(row.clients) for row in rounds),
            sum(row.seconds for row in rounds) / 60,
        )
        each = up / turns if turns else 0.0
        texts = (str(len(rounds)), f"{down:.2f}", f"{up:.2f}", f"{each:.3f}", f"{minutes:.1f}")
        if rounds:
            cells = tuple(map(Cell, texts))
            lines.append(Line(entry.label, cells, entry.reference, entry.colour))
    columns = (
        "Rounds",
        "Sent to clients, MB",
        "Received, MB",
        "Received per client and round, MB",
        "Time, minutes",
    )
    return Table("", columns, tuple(lines), ())


def paper_tables(groups: Sequence[Group], tests: Mapping[str, Tests]) -> list[Table]:
    """Last and Avg of all groups over the same datasets with the same scoring in one table.

    tests: what `significance` found, by the group's slug.
    """
    alike: dict[tuple[frozenset[str], str], list[Group]] = {}
    for group in groups:
        alike.setdefault((frozenset(group.datasets), group.scoring), []).append(group)
    return [_paper_table(members, tests) for members in alike.values()]


def _paper_table(groups: Sequence[Group], tests: Mapping[str, Tests]) -> Table:
    parts = [_paper_cells(group, tests.get(group.slug)) for group in groups]
    absent = tuple(Cell("–") for _ in _PAPER)
    labels = {
        entry.label: entry.reference
        for reference in (False, True)
        for group in groups
        for entry in group.entries
        if entry.reference == reference
    }
    unfinished = {
        entry.label: entry.name
        for group in reversed(groups)
        for entry in reversed(group.entries)
        if entry.unfinished
    }
    lines = [
        Line(
            unfinished.get(label, label),
            tuple(cell for cells in parts for cell in cells.get(label, absent)),
            reference,
        )
        for label, reference in labels.items()
    ]
    settings = ", ".join(dict.fromkeys(group.setting for group in groups))
    notes = [
        "Last: mean accuracy over all datasets after the final stage, %. Avg: mean over stages of the "
        "mean over the datasets seen so far, %. Mean ± sample standard deviation over seeds.",
        "Bold: the best of the finished learning methods; underlined: the second of three or more. "
        "Reference points do not compete, nor do methods with fewer seeds than two others.",
    ]
    if any(tests[group.slug].level for group in groups if group.slug in tests):
        notes.append(
            f"{MARK}: Last is not significantly below the best (paired bootstrap over test samples, "
            f"p ≥ {LEVEL:g})."
        )
    return Table(
        f"{settings}: {len(groups[0].datasets)} datasets, {groups[0].scoring} scoring",
        tuple(column.title for _ in groups for column in _PAPER),
        tuple(lines),
        tuple(notes),
        tuple((f"{group.setting}, β {beta_text(group.beta)}", len(_PAPER)) for group in groups),
    )


def _paper_cells(group: Group, tests: Tests | None) -> dict[str, tuple[Cell, ...]]:
    """A group's cells by the label of their line."""
    level = tests.level if tests else frozenset()
    three = len(group.contest) > 2
    return {
        line.entry.label: tuple(
            Cell(
                line.text(column),
                best=line.ranks.get(column.field) == 0,
                second=line.ranks.get(column.field) == 1 and three,
                mark=column.field == "last" and line.entry.label in level,
                value=line.values[column.field],
            )
            for column in _PAPER
        )
        for line in method_lines(group)
    }
