"""`fcit sweep`: many runs from one file."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcit.cli.options import stoppable
from fcit.cli.screen import show, show_table
from fcit.watch import Terminal

if TYPE_CHECKING:
    from fcit.runs.sweep import Status


def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep file (TOML); see docs/run-folder.md.")],
    out: Annotated[
        Path | None, typer.Option(help="The sweep's folder, instead of the file's `out`.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=0, help="Runs at a time; 0: one per GPU, otherwise one per core.")
    ] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|METHOD", help="Run only this name or method; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and show what is left to run.")
    ] = False,
) -> None:
    """Run several methods, settings and seeds from one file, some at the same time.

    Each run has the folder OUT/NAME/METHOD/seedN; what it prints goes to seedN.log beside it. Finished
    runs are skipped and interrupted ones continue, so after Ctrl-C give the same command again. If a run
    fails, the others go on, and the exit status is 1.

    Example:  fcit sweep recipes/mini/comparison.toml --only disco --only finetune
    """
    from fcit.runs import sweep as sweeps

    runs = sweeps.choose(sweeps.read(file, out), only or [])
    if dry_run:
        _print(sweeps.survey(runs))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop the child processes too
    with stoppable("the same command continues"):
        failed = sweeps.run(runs, jobs, Terminal())
    folder = runs[0].folder.parents[2]
    show(f"{len(runs) - len(failed)} of {len(runs)} runs are finished")
    show(f"the tables: fcit report {folder}")
    if failed:
        raise typer.Exit(1)


def _print(statuses: list[Status]) -> None:
    rows: list[tuple[str, str, str]] = []
    for status in statuses:
        at = status.position
        begun = f"stage {at.stage + 1}, round {at.rounds}" if at else "to do"
        progress = "finished" if status.finished else begun
        rows.append((str(status.run), progress, str(status.run.folder)))
    show_table(rows, "run", "progress", "folder")
    left = sum(not status.finished for status in statuses)
    show(f"{left} of {len(statuses)} runs are left")
