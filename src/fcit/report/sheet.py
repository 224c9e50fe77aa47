"""A table of text with marks, and its forms: Markdown, CSV, LaTeX (the page draws it from the same)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fcit.report.group import Spread

MARK = "†"


@dataclass(frozen=True)
class Cell:
    """What is printed, how it is marked, and the figure behind it, where it is one."""

    text: str
    best: bool = False
    second: bool = False
    mark: bool = False
    figure: Spread | None = None


@dataclass(frozen=True)
class Line:
    """A row: its label and its cells; reference points stand apart, below a rule."""

    label: str
    cells: tuple[Cell, ...]
    reference: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table: `spans` are the upper headings, each over so many of the `columns`."""

    title: str
    first: str
    spans: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def over(self) -> list[str]:
        """The upper heading of every column."""
        return [head for head, count in self.spans for _ in range(count)]


def figure(value: Spread | None, digits: int = 2) -> str:
    """So many decimals, ± the spread over repetitions; a dash where nothing was measured."""
    if value is None:
        return "–"
    more = "" if value.deviation is None else f" ± {value.deviation:.{digits}f}"
    return f"{value.mean:.{digits}f}{more}"


def markdown(sheets: Sequence[Sheet]) -> str:
    """The sheets as Markdown, one section each."""
    parts: list[str] = []
    for sheet in sheets:
        heads = [
            f"{over} {column}".strip()
            for over, column in zip(sheet.over, sheet.columns, strict=True)
        ]
        lines = [
            "| " + " | ".join(map(md, [sheet.first, *heads])) + " |",
            "|---|" + "---:|" * len(heads),
        ]
        for line in sheet.lines:
            cells = [md(line.label), *map(_md_cell, line.cells)]
            lines.append("| " + " | ".join(cells) + " |")
        notes = [f"* {md(note)}" for note in sheet.notes]
        parts.append("\n".join([f"## {md(sheet.title)}", "", *lines, "", *notes]))
    return "\n\n".join(parts) + "\n"


def latex(sheets: Sequence[Sheet]) -> str:
    """The sheets as LaTeX, one tabular each."""
    parts = ["% needs \\usepackage{booktabs}"]
    for sheet in sheets:
        lines = [
            *(f"% {tex(text)}" for text in (sheet.title, *sheet.notes)),
            f"\\begin{{tabular}}{{l{'r' * len(sheet.columns)}}}",
            "\\toprule",
        ]
        if any(head for head, _ in sheet.spans):
            over = [f"\\multicolumn{{{count}}}{{c}}{{{tex(head)}}}" for head, count in sheet.spans]
            lines.append(" & ".join(["", *over]) + " \\\\")
        lines += [" & ".join(map(tex, [sheet.first, *sheet.columns])) + " \\\\", "\\midrule"]
        before = sheet.lines[0] if sheet.lines else None
        for line in sheet.lines:
            if before and line.reference and not before.reference:
                lines.append("\\midrule")
            lines.append(" & ".join([tex(line.label), *map(_tex_cell, line.cells)]) + " \\\\")
            before = line
        parts.append("\n".join([*lines, "\\bottomrule", "\\end{tabular}"]))
    return "\n\n".join(parts) + "\n"


def to_csv(sheets: Sequence[Sheet]) -> str:
    """The sheets as CSV, one below the other; a figure's mean and standard deviation stand apart."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for number, sheet in enumerate(sheets):
        if number:
            writer.writerow([])
        columns = list(zip(*(line.cells for line in sheet.lines), strict=True))
        split = [any(cell.figure for cell in column) for column in columns]
        heads: list[str] = [sheet.first]
        for two, over, name in zip(split, sheet.over, sheet.columns, strict=True):
            head = f"{over} {name}".strip()
            heads += [head, f"{head} sd"] if two else [head]
        writer.writerow([sheet.title])
        writer.writerow(map(plain, heads))
        for line in sheet.lines:
            cells: list[str] = [line.label]
            for two, cell in zip(split, line.cells, strict=True):
                cells += _numbers(cell.figure) if two else [cell.text]
            writer.writerow(map(plain, cells))
    return out.getvalue()


def md(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|~])", r"\\\1", text.replace("\n", " "))


def plain(value: object) -> object:
    """A text cell that a spreadsheet would take for a formula gets a leading apostrophe."""
    text = isinstance(value, str) and value[:1] in ("=", "+", "@")
    return f"'{value}" if text else value


def tex(text: str) -> str:
    """Text that LaTeX leaves as it is."""
    return "".join(_TEX.get(char, char) for char in text)


def tex_number(text: str) -> str:
    """A printed figure in LaTeX."""
    text = text.replace(" ± ", " $\\pm$ ").replace("–", "--")
    return re.sub(r"(?<!\d)-(?=\d)", "$-$", text)


def _numbers(value: Spread | None) -> list[str]:
    if value is None:
        return ["", ""]
    return [f"{value.mean:.4f}", "" if value.deviation is None else f"{value.deviation:.4f}"]


def _md_cell(cell: Cell) -> str:
    text = md(cell.text)
    text = f"**{text}**" if cell.best else f"<u>{text}</u>" if cell.second else text
    return text + MARK * cell.mark


def _tex_cell(cell: Cell) -> str:
    text = tex_number(cell.text) if cell.figure else tex(cell.text)
    form = "\\textbf" if cell.best else "\\underline" if cell.second else ""
    text = f"{form}{{{text}}}" if form else text
    return text + "$^\\dagger$" * cell.mark


_TEX = {
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
