"""What several commands share: arguments, and how a stopped one ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[Path, typer.Argument(help="A recipe (TOML); see the folder recipes/.")]
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


@contextmanager
def stoppable(then: str) -> Iterator[None]:
    """Ctrl-C ends in one line that says how to go on, and exit status 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"fcit: stopped; what was finished is kept; {then}", err=True)
        raise typer.Exit(130) from None
