"""What the command line prints: texts and tables, and nothing in them that a terminal would obey.

Tables are as wide as the screen; in a file or a pipe no line is broken.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fcit.watch import printable

if TYPE_CHECKING:
    from rich.text import Text

    Row = Sequence[str | Text]

ENDLESS = 1_000_000
"""The width of what is not a screen."""
WORD = 16
"""Longer words of a text column may be broken, to make room for numbers."""


def show(*texts: str, err: bool = False) -> None:
    """Print texts, one below the other. err: on standard error."""
    for text in texts:
        print(printable(text), file=sys.stderr if err else sys.stdout)


def show_json(value: Any) -> None:
    """Print a dataclass, or a list of them, as JSON."""
    table = [asdict(entry) for entry in value] if isinstance(value, list) else asdict(value)
    show(json.dumps(table, indent=1, ensure_ascii=False))


def show_table(rows: Iterable[Row | None], *texts: str, numbers: Sequence[str] = ()) -> None:
    """Print rows as a table: columns of text, then right-aligned columns of numbers. None draws a line.

    Numbers are never broken: those that do not fit beside the texts follow in further tables, each with
    the first column of text.
    """
    from rich.console import Console
    from rich.measure import measure_renderables
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else ENDLESS, highlight=False)
    cells = [
        row and [cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row]
        for row in [(*texts, *numbers), *rows]
    ]
    columns = list(zip(*filter(None, cells), strict=True))

    sizes = [measure_renderables(console, console.options, column) for column in columns]
    words = [min(size.minimum + 3, WORD) for size in sizes[: len(texts)]]
    widths = [size.maximum + 3 for size in sizes[len(texts) :]]
    heads, *body = cells
    for group in _groups(words, widths, console.width - 1):
        table = Table()
        for column in group:
            number = column >= len(texts)
            justify = "right" if number else "left"
            table.add_column(heads[column], justify=justify, no_wrap=number, overflow="fold")
        for row in body:
            table.add_row(*(row[column] for column in group)) if row else table.add_section()
        console.print(table)


def _groups(texts: Sequence[int], numbers: Sequence[int], width: int) -> Iterator[list[int]]:
    """The columns of each table, from all columns' widths."""
    group, free = list(range(len(texts))), width - sum(texts)
    for column, need in enumerate(numbers, len(texts)):
        if need > free and group != [0]:
            yield group
            group, free = [0], width - texts[0]
        group.append(column)
        free -= need
    yield group
