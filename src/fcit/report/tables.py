"""A table of text and numbers, and its forms: Markdown, CSV, LaTeX (the page draws it from the same)."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fcit.report.groups import Spread

MARK = "†"
_NUMBERS = re.compile(r"[+-][\d.]+( to [+-][\d.]+)?")
"""A signed number or an interval, which no spreadsheet takes for a formula."""


@dataclass(frozen=True)
class Cell:
    """What is printed, and how it is marked."""

    text: str
    best: bool = False
    second: bool = False
    mark: bool = False
    value: Spread | None = None
    """The number behind the text, where it is one."""


@dataclass(frozen=True)
class Line:
    """A row; reference points stand below a rule."""

    label: str
    cells: tuple[Cell, ...]
    reference: bool = False
    colour: str = ""
    """The method's colour, where the page shows it."""


@dataclass(frozen=True)
class Table:
    """A table of methods: one line each."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    spans: tuple[tuple[str, int], ...] = ()
    """Upper headings, each with the number of columns below it."""

    @property
    def heads(self) -> list[str]:
        """The heading of every column, the upper one included."""
        over = [head for head, count in self.spans for _ in range(count)] or [""] * len(
            self.columns
        )
        return [f"{up} {name}".strip() for up, name in zip(over, self.columns, strict=True)]


def format_spread(value: Spread | None, digits: int = 2, sign: str = "") -> str:
    """So many decimals, ± the spread over repetitions; a dash where nothing was measured. sign: "+" for
    differences."""
    if value is None:
        return "–"
    deviation = "" if value.deviation is None else f" ± {value.deviation:.{digits}f}"
    return f"{value.mean:{sign}.{digits}f}{deviation}"


def to_markdown(tables: Sequence[Table]) -> str:
    """The tables as Markdown, one section each."""
    sections: list[str] = []
    for table in tables:
        rows = [["Method", *table.heads], *([line.label] for line in table.lines)]
        rows = [[_markdown(text) for text in row] for row in rows]
        for row, line in zip(rows[1:], table.lines, strict=True):
            row += map(_markdown_cell, line.cells)
        head, *body = [f"| {' | '.join(row)} |" for row in rows]
        rule = "|---|" + "---:|" * len(table.columns)
        notes = [f"* {_markdown(note)}" for note in table.notes]
        title = f"## {_markdown(table.title)}"
        sections.append("\n".join([title, "", head, rule, *body, "", *notes]))
    return "\n\n".join(sections) + "\n"


def to_latex(tables: Sequence[Table]) -> str:
    """The tables as LaTeX, one tabular each."""
    sections = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        lines = [
            *(f"% {_latex(text)}" for text in (table.title, *table.notes)),
            f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            "\\toprule",
        ]
        if table.spans:
            over = [
                f"\\multicolumn{{{count}}}{{c}}{{{_latex(head)}}}" for head, count in table.spans
            ]
            lines.append(" & ".join(["", *over]) + " \\\\")
        lines += [" & ".join(map(_latex, ["Method", *table.columns])) + " \\\\", "\\midrule"]
        for number, line in enumerate(table.lines):
            if number and line.reference and not table.lines[number - 1].reference:
                lines.append("\\midrule")
            lines.append(" & ".join([_latex(line.label), *map(_latex_cell, line.cells)]) + " \\\\")
        sections.append("\n".join([*lines, "\\bottomrule", "\\end{tabular}"]))
    return "\n\n".join(sections) + "\n"


def to_csv(tables: Sequence[Table]) -> str:
    """The tables as CSV, one below the other; a number's mean and deviation have a column each."""
    rows: list[list[str]] = []
    for table in tables:
        numeric = [
            any(line.cells[at].value for line in table.lines) for at in range(len(table.columns))
        ]
        head = ["Method"]
        for name, both in zip(table.heads, numeric, strict=True):
            head += [name, f"{name} sd"] if both else [name]
        rows += [*([[]] if rows else []), [table.title], head]
        for line in table.lines:
            row = [line.label]
            for cell, both in zip(line.cells, numeric, strict=True):
                row += csv_numbers(cell.value) if both else [cell.text]
            rows.append(row)
    return csv_text(rows)


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV; a cell that a spreadsheet would take for a formula gets a leading apostrophe."""
    out = io.StringIO()
    for row in rows:
        safe = [
            f"'{text}"
            if text[:1] in ("=", "+", "-", "@") and not _NUMBERS.fullmatch(text)
            else text
            for text in row
        ]
        csv.writer(out, lineterminator="\n").writerow(safe)
    return out.getvalue()


def csv_numbers(value: Spread | None) -> list[str]:
    """A mean and its deviation as two cells, empty where there is none."""
    numbers = (value.mean, value.deviation) if value else (None, None)
    return ["" if number is None else f"{number:.4f}" for number in numbers]


def _markdown(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|~])", r"\\\1", text.replace("\n", " "))


def _markdown_cell(cell: Cell) -> str:
    text = _markdown(cell.text)
    text = f"**{text}**" if cell.best else f"<u>{text}</u>" if cell.second else text
    return text + MARK * cell.mark


def _latex(text: str) -> str:
    """Text that LaTeX leaves as it is."""
    return "".join(_LATEX.get(char, char) for char in text)


def _latex_cell(cell: Cell) -> str:
    text = _latex(cell.text)
    if cell.value:
        text = re.sub(r"(?<![\d-])-(?=\d)", "$-$", text)  # a minus, not a hyphen
    form = "\\textbf" if cell.best else "\\underline" if cell.second else ""
    text = f"{form}{{{text}}}" if form else text
    return text + "$^\\dagger$" * cell.mark


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "β": r"$\beta$",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "†": r"$\dagger$",
    "−": "$-$",
    "–": "--",
    "\n": " ",
}
