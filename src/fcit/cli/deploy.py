"""`fcit deploy ...`: prepare a federation across machines."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from fcit.cli.options import Changes, Recipe
from fcit.cli.screen import show
from fcit.watch import Terminal

deploy = typer.Typer(no_args_is_help=True, help="Prepare a federation across machines.")


@deploy.callback()
def _group() -> None:
    """Keeps `init` a command of a group; typer would make a group's only command the group."""


@deploy.command()
def init(
    recipe: Recipe,
    out: Annotated[Path, Option(help="The folder to write; new or empty.", metavar="DIR")],
    host: Annotated[
        list[str] | None,
        Option(
            help="A host name or address of the server; repeatable, clients use the first [localhost]."
        ),
    ] = None,
    changes: Changes = None,
    split: Annotated[
        bool, Option("--split", help="Give every client its share of the recipe's data.")
    ] = False,
    install: Annotated[
        str, Option(help="Where the folders will be installed on their machines.", metavar="DIR")
    ] = "/srv/fcit",
) -> None:
    """Write what operators need: certificates, keys, commands and systemd units.

    Writes one folder for the server and one per client of the recipe; copy each to its machine.
    Connections are encrypted, and the server refuses clients whose key is not registered. With --split
    each client folder also gets data, for trials; otherwise the client brings its own. Continue with
    docs/deploy.md.

    Example:  fcit deploy init recipes/demo.toml --out federation --host fcit.example.org
    """
    from fcit.recipe import config
    from fcit.runs.engine import deployment

    deployment(
        config.load(recipe, changes or []), out, host or ["localhost"], split, install, Terminal()
    )
    show(f"wrote {out}; continue with its README.md")
