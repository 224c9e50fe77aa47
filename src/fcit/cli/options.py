"""What several commands share: arguments, and what Ctrl-C does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[Path, typer.Argument(help="A recipe (TOML); see the folder recipes/.")]
Folder = Annotated[Path, typer.Argument(help="A run's folder.", metavar="RUN")]
Method = Annotated[
    str | None,
    typer.Option(
        help="Use this method instead of the recipe's: finetune, lwf, ewc, l2p, olora, moelora, hide, "
        "disco, or a reference point (zeroshot, individual, multitask)."
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a recipe key, e.g. federation.rounds=2; repeatable.",
    ),
]
Images = Annotated[
    list[Path] | None,
    typer.Option(
        "--images",
        metavar="DIR",
        help="The folder that image paths are relative to, instead of datasets/ in the data folder; "
        "several are tried in order.",
    ),
]


@contextmanager
def stoppable(then: str) -> Iterator[None]:
    """Ctrl-C prints one line that says how to go on, and exits with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"fcit: stopped; what was finished is kept; {then}", err=True)
        raise typer.Exit(130) from None
