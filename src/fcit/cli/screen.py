"""Tables for people: on a screen as wide as it is, in a file or a pipe without line breaks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console() -> Console:
    """Standard output; wide where it is not a screen."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 240, highlight=False)


def table(*texts: str, numbers: Sequence[str] = (), title: str | None = None) -> Table:
    """An empty table: columns of text, then right-aligned columns of numbers."""
    from rich.table import Table

    empty = Table(*texts, title=title)
    for name in numbers:
        empty.add_column(name, justify="right")
    return empty


def show(*parts: object) -> None:
    """Print tables, whose cells may have markup, and each text as one line without markup."""
    out = console()
    for part in parts:
        text = isinstance(part, str)
        out.print(part, markup=not text, soft_wrap=text)
