"""What several commands share: arguments, and what Ctrl-C does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from fcit.types import FcitError

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
Rules = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        metavar="NAME=FILE",
        help="Score the dataset NAME by the rule in a Python file of your own (the file is run).",
    ),
]


def rule_files(given: list[str] | None) -> dict[str, str]:
    """The files of scoring rules by dataset. Raises FcitError for what is not NAME=FILE."""
    pairs = [one.partition("=") for one in given or ()]
    if wrong := next((name for name, _, file in pairs if not (name and file)), None):
        raise FcitError(f"--rule {wrong}: write NAME=FILE, for example My-Plants=close.py")
    return {name: file for name, _, file in pairs}


@contextmanager
def stoppable(then: str) -> Iterator[None]:
    """Ctrl-C prints one line that says how to go on, and exits with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"fcit: stopped; what was finished is kept; {then}", err=True)
        raise typer.Exit(130) from None
