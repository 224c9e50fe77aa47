"""`fcit deploy ...`: prepare a federation across machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcit.cli.options import Changes, Recipe
from fcit.watch import Terminal

deploy = typer.Typer(no_args_is_help=True, help="Prepare a federation across machines.")


@deploy.callback()
def _group() -> None:
    """Prepare a federation across machines."""


@deploy.command()
def init(
    recipe: Recipe,
    out: Annotated[Path, typer.Option(help="A folder, new or empty.", metavar="DIR")],
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name or address of the server's machine; clients use the first [localhost]."
        ),
    ] = None,
    changes: Changes = None,
    split: Annotated[
        bool, typer.Option("--split", help="Give every client its share of the recipe's data.")
    ] = False,
    install: Annotated[
        str, typer.Option(help="Where the folders will stand on their machines.", metavar="DIR")
    ] = "/srv/fcit",
) -> None:
    """Write what operators need: certificates, keys, commands and systemd units.

    DIR gets a folder for the server and one for every client of the recipe, each to be carried to its
    own machine. Connections are encrypted, and a client whose key is not registered is refused.
    docs/deploy.md goes on from there. With --split each client's data folder is filled, for trials;
    otherwise it is left to the client.

    Example:  fcit deploy init recipes/demo.toml --out federation --host fcit.example.org
    """
    from fcit.recipe import config as configs
    from fcit.runs.engine import deployment

    loaded = configs.load(recipe, changes or [])
    deployment(loaded, out, host or ["localhost"], split, install, Terminal())
    typer.echo(f"wrote {out}; go on with its README.md")
