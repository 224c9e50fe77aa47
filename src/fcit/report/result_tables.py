"""The tables of results: one per setting with every metric; a paper's with all settings side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fcit.benchmark.missing import told
from fcit.report.groups import Group, beta_text, group_runs
from fcit.report.results import COLUMNS, Column, MethodLine, columns, method_lines
from fcit.report.run_data import read_runs
from fcit.report.significance import LEVEL, Tests
from fcit.report.tables import MARK, Cell, Line, Table, csv_numbers, csv_text

_PAPER = [column for column in COLUMNS if column.field in ("last", "avg")]
_TERMINAL = ("last", "avg", "forgetting", "zero_shot", "chance", "routing")


def overview(runs: Sequence[Path]) -> list[Table]:
    """What a terminal shows of run folders: every setting's methods with the main metrics.

    Raises FcitError naming the folder or file at fault.
    """
    groups = group_runs(read_runs(runs))
    return [_table(group, columns(method_lines(group), _TERMINAL), False) for group in groups]


def setting_table(group: Group) -> Table:
    """A group's methods with every metric that was measured."""
    return _table(group, columns(method_lines(group)), True)


def _table(group: Group, shown: Sequence[Column], seeds: bool) -> Table:
    rows = [
        Line(
            line.entry.name,
            (
                *(_cell(line, column) for column in shown),
                *([Cell(line.entry.seeds)] if seeds else ()),
            ),
            line.entry.reference,
        )
        for line in method_lines(group)
    ]
    titles = (*(column.title for column in shown), *(["Seeds"] if seeds else ()))
    notes = [f"{column.title}: {column.meaning}." for column in shown] if seeds else []
    notes += [*_differing([group]), *_rule_broken([group]), *_left_out([group])]
    return Table(group.title, titles, tuple(rows), tuple(notes))


def _differing(groups: Sequence[Group]) -> list[str]:
    """Notes on what runs of a group differ in besides their methods."""
    return [
        f"{_span(group)}: the runs also differ in {'; '.join(group.differences)}."
        for group in groups
        if group.differences
    ]


def _rule_broken(groups: Sequence[Group]) -> list[str]:
    """A note on methods whose clients keep old data."""
    runs = [entry.first for group in groups for entry in group.entries]
    names = {run.method for run in runs if run.method_used and run.method_used.replays}
    rule = "clients keep old data, which the setting forbids"
    return [f"{name}: {rule}; compare it with that in mind." for name in sorted(names)]


def _left_out(groups: Sequence[Group]) -> list[str]:
    """Notes on records that runs left out because of their image."""
    runs = [run for group in groups for entry in group.entries for run in entry.runs]
    lost = dict.fromkeys(told(run.dropped) for run in runs if run.dropped)
    return [f"Left out, as their images are missing or cannot be read: {text}." for text in lost]


def _cell(line: MethodLine, column: Column, **marks: bool) -> Cell:
    best = line.ranks.get(column.field) == 0
    return Cell(line.text(column), best, value=line.values[column.field], **marks)


def settings_csv(groups: Sequence[Group]) -> str:
    """Every group's table in one CSV for programs: a line per method and group, always all columns."""
    fields = [name for column in COLUMNS for name in (column.field, f"{column.field}_sd")]
    head = ["setting", "beta", "scoring", "datasets", "data", "method", "seeds", "unfinished"]
    rows = [[*head, *fields]]
    for group in groups:
        beta = "" if group.beta is None else str(group.beta)
        about = [group.setting, beta, group.scoring, str(len(group.datasets)), group.data]
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
        turns = sum(len(row.clients) for row in rounds)
        minutes = sum(row.seconds for row in rounds) / 60
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


def _span(group: Group) -> str:
    span = f"{group.setting}, β {beta_text(group.beta)}"
    return f"{span}, {group.data}" if group.data else span


def _paper_table(groups: Sequence[Group], tests: Mapping[str, Tests]) -> Table:
    parts = [_paper_cells(group, tests.get(group.slug)) for group in groups]
    absent = tuple(Cell("–") for _ in _PAPER)
    entries = sorted((e for group in groups for e in group.entries), key=lambda e: e.reference)
    labels = {entry.label: entry.reference for entry in entries}
    open_in: dict[str, list[str]] = {}
    for group in groups:
        for entry in (entry for entry in group.entries if entry.unfinished):
            where = f"{group.setting}, {group.data}," if group.data else group.setting
            open_in.setdefault(entry.label, []).append(f"{where} {entry.status}")
    unfinished = {label: f"{label} ({'; '.join(places)})" for label, places in open_in.items()}
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
        "Last: mean accuracy over all datasets after the final stage, % (MFN). Avg: mean over stages of "
        "the mean over the datasets seen so far, % (MAA). Mean ± sample standard deviation over seeds.",
        "Bold: the best of the finished learning methods; underlined: the second of three or more. "
        "Reference points do not compete, nor do methods with fewer seeds than two others.",
    ]
    if any(tests[group.slug].level for group in groups if group.slug in tests):
        notes.append(
            f"{MARK}: Last is not significantly below the best (paired bootstrap over test samples, "
            f"p ≥ {LEVEL:g}, or Student's t interval over seeds with 0 in it)."
        )
    notes += [*_differing(groups), *_rule_broken(groups), *_left_out(groups)]
    return Table(
        f"{settings}: {len(groups[0].datasets)} datasets, {groups[0].scoring} scoring",
        tuple(column.title for _ in groups for column in _PAPER),
        tuple(lines),
        tuple(notes),
        tuple((_span(group), len(_PAPER)) for group in groups),
    )


def _paper_cells(group: Group, tests: Tests | None) -> dict[str, tuple[Cell, ...]]:
    """A group's cells by the label of their line."""
    level = tests.level if tests else frozenset()
    three = len(group.contest) > 2
    return {
        line.entry.label: tuple(
            _cell(
                line,
                column,
                second=line.ranks.get(column.field) == 1 and three,
                mark=column.field == "last" and line.entry.label in level,
            )
            for column in _PAPER
        )
        for line in method_lines(group)
    }
