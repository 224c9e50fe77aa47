"""What several commands share: arguments, the console that tables go to, and how Ctrl-C ends one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

Recipe = Annotated[Path, typer.Argument(help="A recipe (TOML); see the folder recipes/.")]
Folder = Annotated[Path, typer.Argument(help="A run's folder.", metavar="RUN")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change any recipe key, e.g. federation.rounds=2."
    ),
]
Images = Annotated[
    list[Path] | None,
    typer.Option(
        "--images",
        metavar="DIR",
        help="A folder that image paths start at, instead of datasets/ of the data folder; several "
        "are tried in order.",
    ),
]


def console() -> Console:
    """Where tables go; in a file or a pipe they are wide, because nothing has to fit a screen."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 240, highlight=False)


@contextmanager
def stoppable(then: str) -> Iterator[None]:
    """Ctrl-C prints one line that says how to go on, and exits with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"fcit: stopped; what was finished is kept; {then}", err=True)
        raise typer.Exit(130) from None
