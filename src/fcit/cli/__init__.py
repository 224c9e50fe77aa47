"""The command line: each command is a few lines over the Python API and imports only what it needs.

Commands that belong together have a file of their own; `screen` prints, `options` holds what several
commands share.
"""

import io
import sys
from typing import Annotated

import typer
from click import ClickException, UsageError
from typer import Option

import fcit
from fcit.cli import machine, results, run, use
from fcit.cli.data import data
from fcit.cli.deploy import deploy
from fcit.cli.fetch import fetch
from fcit.cli.plan import plan
from fcit.cli.screen import show
from fcit.cli.why import why
from fcit.types import FcitError, first_line
from fcit_bench.command import bench

app = typer.Typer(
    name="fcit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    suggest_commands=False,  # click does
    help="""Federated Continual Instruction Tuning of large multimodal models.

Clients hold private image-instruction data, new tasks arrive stage by stage, and a server tunes one
model for all of them with federated LoRA: **fcit** runs the benchmark, DISCO and its baselines.

Start here (minutes on a laptop; no data, no GPU and no network are needed):

    fcit demo

    fcit plan demo

    fcit run demo --out runs/first

    fcit report runs/first

    fcit recipe demo > my.toml

`fcit COMMAND --help` shows a command's options and an example.
""",
)
COMMANDS = {
    "Train and compare": (
        run.demo,
        run.recipe,
        plan,
        run.run,
        run.sweep,
        results.report,
        run.import_reference,
    ),
    "Look at a run": (run.evaluate, why, results.score),
    "Use a run's model": (use.chat, use.serve, use.export),
    "This machine": (machine.doctor, machine.cache, bench),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
data.command()(fetch)
app.add_typer(data, name="data", rich_help_panel="Data, and a federation of machines")
app.add_typer(deploy, name="deploy", rich_help_panel="Data, and a federation of machines")


def _version(asked: bool) -> None:
    if asked:
        show(f"fcit {fcit.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Print fcit's version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; user errors print one line and exit with status 2, Ctrl-C with 130."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what its encoding lacks is named or shown later
            stream.reconfigure(
                errors="surrogateescape" if stream is sys.stdin else "backslashreplace"
            )
    try:
        status = app(prog_name="fcit", standalone_mode=False) or 0
        sys.stdout.flush()
        error = "stopped" if status == 130 else ""
    except ClickException as mistake:
        status, error = 2, mistake.format_message()
        if error and isinstance(mistake, UsageError) and mistake.ctx:  # `fcit` alone shows its help
            error = f"{error.rstrip('.')}; see {mistake.ctx.command_path} --help"
    except FcitError as mistake:
        status, error = 2, str(mistake)
    except OSError as mistake:  # for example a folder that cannot be written, or a full disk
        status, error = 2, first_line(mistake)
    if error:
        show("fcit: " + " ".join(error.splitlines()), err=True)
    sys.exit(status)
