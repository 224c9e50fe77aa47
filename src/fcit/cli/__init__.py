"""The command line: every command is a few lines over the Python API, and imports only what it needs."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from fcit.cli.bench import bench
from fcit.cli.data import data
from fcit.cli.deploy import deploy
from fcit.cli.options import Changes, Recipe, stoppable
from fcit.cli.plan import plan
from fcit.cli.sweep import sweep
from fcit.cli.use import chat, export, serve
from fcit.cli.why import why
from fcit.types import FcitError
from fcit.watch import Terminal

app = typer.Typer(
    name="fcit",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Federated Continual Instruction Tuning of large multimodal models.

Clients hold private image-instruction data, new tasks arrive stage by stage, and a server tunes one
model for all of them with federated LoRA: **fcit** runs the benchmark, DISCO and its baselines.

Start here:

    fcit run recipes/demo.toml --method disco --out runs/first

    fcit report runs/first
""",
)
app.command()(plan)
app.add_typer(data, name="data")
app.add_typer(deploy, name="deploy")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"fcit {metadata.version('fcit')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print fcit's version."),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    recipe: Recipe,
    method: Annotated[
        str | None,
        typer.Option(
            help="Train with this method instead of the recipe's: finetune, lwf, ewc, l2p, olora, "
            "moelora, hide, disco, or a reference point (zeroshot, individual, multitask)."
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Where clients run: local (worker processes) or flower (Flower's simulation)."
        ),
    ] = None,
    changes: Changes = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder [runs/SETTING-METHOD-seedN].")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was cut off.")
    ] = False,
) -> None:
    """Run a recipe: federate, evaluate after every stage, and print the accuracies.

    The run's folder holds config.toml, matrix.json, log.jsonl, predictions/ and state/. A run that
    was cut off, at any moment, goes on with --resume and ends in the same numbers.

    Any method trains under another federated optimizer with --set federation.optimizer=NAME: fedavg,
    fedprox, scaffold, fedavgm, fedadam, fedyogi or fedadagrad; and with LoRA blocks averaged as
    products with --set federation.average=product.

    Example:  fcit run recipes/mini/task-hom.toml --method disco --set federation.rounds=2
    """
    from fcit.recipe import config
    from fcit.runs import api

    extra = [f"federation.engine={engine}"] if engine else []
    loaded = config.load(recipe, [*(changes or []), *extra], method)
    with stoppable("go on with --resume"):
        done = api.run(loaded, out, resume, Terminal())
    _print_results([done.folder])
    typer.echo(f"run folder: {done.folder}")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="A run's folder.", metavar="RUN")],
) -> None:
    """Answer the test sets anew with a run's saved state, and rewrite its last row.

    The same state gives the same answers: use it to check a finished run.
    """
    from fcit.runs import api
    from fcit.runs.session import Session

    found = api.load(folder)
    session = Session(found.config, folder, Terminal())
    with stoppable("run the same command again"):
        session.prepare()
        session.evaluate()
    _print_results([folder])


@app.command()
def score(
    dataset: Annotated[str, typer.Option(help="Whose answers: IconQA, OCR-VQA, Flickr30k, ...")],
    truth: Annotated[
        Path,
        typer.Option(help="The dataset's test file (captions: the COCO file).", metavar="FILE"),
    ],
    predictions: Annotated[
        Path, typer.Option(help='JSON lines {"question_id": ..., "text": ...}.', metavar="FILE")
    ],
    mode: Annotated[str, typer.Option(help="strict, or reference: as the published code.")] = (
        "strict"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score anybody's answers to a dataset's test questions, in percent.

    Strict scoring wants one answer to every question; reference scoring counts as the published code
    does, over the answers there are.

    Example:  fcit score --dataset IconQA --truth val.json --predictions answers.jsonl
    """
    import json
    from dataclasses import asdict

    from fcit.benchmark.predictions import score as of_files

    if mode not in ("strict", "reference"):
        raise FcitError(f"--mode: {mode!r}; there are strict and reference")
    found = of_files(dataset, truth, predictions, mode)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        typer.echo(
            f"{found.dataset}: {found.score:.2f} % of {found.samples} predictions "
            f"({found.mode} scoring; the test file asks {found.questions} questions)"
        )


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Runs' folders, or folders of such, as a sweep's.", metavar="RUN..."),
    ],
    out: Annotated[Path | None, typer.Option(help="The report's folder [RUN/report].")] = None,
) -> None:
    """Make one self-contained HTML page of one or more runs, with every figure and table beside it.

    Beside index.html stand the figures (PNG, SVG) and the tables (Markdown, CSV, LaTeX): of every
    setting, of all settings in one, and what differs significantly between methods. Nothing is run
    again. The last line printed is the page's path.
    """
    from fcit import report as reports

    page = reports.write(folders, out or folders[0] / "report")
    _print_results(folders)
    typer.echo(str(page.resolve()))


app.command()(why)
app.command()(sweep)
app.command()(export)
app.command()(chat)
app.command()(serve)
app.command()(bench)


@app.command()
def doctor() -> None:
    """Show what this machine has, and what each missing part would switch off."""
    from fcit.cli.doctor import examine

    examine()


def _print_results(folders: list[Path]) -> None:
    """A table a setting, a line a method."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from fcit.report import overview

    columns = ("Last", "Avg", "forgetting", "zero-shot", "chance", "routing")
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console = Console(width=140)
    for title, rows in overview(folders).items():
        table = Table(title=title)
        for name in ("method", *columns):
            table.add_column(name, no_wrap=name == "method")
        for label, values in rows:
            table.add_row(escape(label), *values)
        console.print(table)


def main() -> None:
    """Run the command line; one clear line and exit status 2 for what a person can mend."""
    try:
        app(standalone_mode=True)
    except FcitError as error:
        typer.echo(f"fcit: {error}", err=True)
        sys.exit(2)
    except OSError as error:  # a folder that cannot be written, a full disk
        typer.echo(f"fcit: {error.filename or 'cannot go on'}: {error.strerror or error}", err=True)
        sys.exit(2)
