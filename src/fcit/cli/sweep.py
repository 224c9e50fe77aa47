"""`fcit sweep`: many runs from one file."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcit.cli.options import stoppable
from fcit.watch import Terminal

if TYPE_CHECKING:
    from fcit.runs.sweep import Status


def sweep(
    file: Annotated[Path, typer.Argument(help="What to run (TOML).")],
    out: Annotated[
        Path | None, typer.Option(help="The sweep's folder, instead of the file's `out`.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=0, help="Runs at once; 0: one a GPU, else what the cores carry.")
    ] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|METHOD", help="These names or methods alone; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and show what is left; run nothing.")
    ] = False,
) -> None:
    """Run methods x settings x seeds from one file: what is missing, several at once.

    Each run gets a folder OUT/NAME/METHOD/seedN, and beside it seedN.log, what it printed. Finished runs
    are not repeated, and those that were cut off go on: after Ctrl-C give the same command again. A run
    that fails is named and does not stop the others; the exit status is 1 then.

    Example:  fcit sweep recipes/mini/comparison.toml --only disco --only finetune
    """
    from fcit.runs import sweep as sweeps

    runs = sweeps.choose(sweeps.read(file, out), only or [])
    if dry_run:
        _print(sweeps.survey(runs))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else its runs would outlive it
    with stoppable("the same command goes on from there"):
        failed = sweeps.run(runs, jobs, Terminal())
    folder = runs[0].folder.parents[2]
    typer.echo(f"{len(runs) - len(failed)} of {len(runs)} runs are finished")
    typer.echo(f"the tables: fcit report {folder}")
    if failed:
        raise typer.Exit(1)


def _print(statuses: list[Status]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("run", "how far", "folder")
    for one in statuses:
        at = one.position
        begun = f"stage {at.stage + 1}, round {at.rounds}" if at else "to do"
        table.add_row(str(one.run), "finished" if one.finished else begun, str(one.run.folder))
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console = Console(width=240)
    console.print(table)
    left = sum(not one.finished for one in statuses)
    typer.echo(f"{left} of {len(statuses)} runs are left")
