"""The command line: each command is a few lines over the Python API and imports only what it needs.

A group of commands or a long command has a file of its own; `screen` prints tables, `options` holds what
several commands share.
"""

import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from fcit.cli.data import data
from fcit.cli.deploy import deploy
from fcit.cli.doctor import doctor
from fcit.cli.options import Changes, Folder, Method, Recipe, stoppable
from fcit.cli.plan import plan
from fcit.cli.screen import show, table
from fcit.cli.sweep import sweep
from fcit.cli.use import chat, export, serve
from fcit.cli.why import why
from fcit.types import FcitError
from fcit.watch import Terminal
from fcit_bench.command import bench

app = typer.Typer(
    name="fcit",
    no_args_is_help=True,
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


def _help_keys(asked: bool) -> None:
    if asked:
        from rich.text import Text

        from fcit.recipe.keys import sections

        for title, keys in sections():
            printed = table("key", "default", "what it does", title=title)
            for key in keys:
                description = re.sub(r"\[([^]]+)\]\([^)]+\)", r"docs/\1", key.description)
                printed.add_row(*map(Text, (key.name, key.default, description)))
            show(printed)
        raise typer.Exit


@app.command()
def run(
    recipe: Recipe,
    method: Method = None,
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
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    help_keys: Annotated[
        bool,
        typer.Option(
            "--help-keys",
            callback=_help_keys,
            is_eager=True,
            help="Print every key of a recipe, with its default and description.",
        ),
    ] = False,
) -> None:
    """Run a recipe: train stage by stage, evaluate after every stage, and print the accuracies.

    The run's folder holds config.toml, matrix.json, log.jsonl, predictions/ and state/. An interrupted
    run continues with --resume and ends in the same numbers.

    Every method works with every federated optimizer: --set federation.optimizer=NAME takes fedavg,
    fedprox, scaffold, fedavgm, fedadam, fedyogi or fedadagrad. --set federation.average=product averages
    B·A instead of A and B separately.

    Example:  fcit run recipes/mini/task-hom.toml --method disco --set federation.rounds=2
    """
    from fcit.recipe import config
    from fcit.runs import api

    extra = [f"federation.engine={engine}"] if engine else []
    loaded = config.load(recipe, [*(changes or []), *extra], method)
    with stoppable("continue with --resume"):
        done = api.run(loaded, out, resume, Terminal())
    _print_results([done.folder])
    typer.echo(f"run folder: {done.folder}")


@app.command()
def evaluate(folder: Folder) -> None:
    """Answer the test sets again with a run's saved state, and rewrite the last row of its matrix.

    The same state gives the same answers, so this checks a finished run.
    """
    from fcit.runs import api
    from fcit.runs.session import Session

    session = Session(api.load(folder).config, folder, Terminal())
    with stoppable("run the same command again"):
        session.prepare()
        session.evaluate()
    _print_results([folder])


@app.command()
def score(
    dataset: Annotated[str, typer.Option(help="IconQA, OCR-VQA, Flickr30k, ...")],
    truth: Annotated[
        Path,
        typer.Option(help="The dataset's test file (captions: the COCO file).", metavar="FILE"),
    ],
    predictions: Annotated[
        Path, typer.Option(help='JSON lines {"question_id": ..., "text": ...}.', metavar="FILE")
    ],
    mode: Annotated[
        str, typer.Option(help="strict (correct), or reference (as the published code scores).")
    ] = "strict",
    rule: Annotated[
        str,
        typer.Option(
            help="A Python file with a scoring rule of your own (it is run).", metavar="FILE"
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score predictions made by any model on a dataset's test questions, in percent.

    Strict scoring needs exactly one answer per question; reference scoring, like the published code,
    counts over the answers in the file.

    Example:  fcit score --dataset IconQA --truth val.json --predictions answers.jsonl
    """
    import json
    from dataclasses import asdict

    from fcit.benchmark.predictions import score as score_files
    from fcit.benchmark.rules import load

    if mode not in ("strict", "reference"):
        raise FcitError(f"--mode: {mode!r}; use strict or reference")
    rules = load({dataset: rule} if rule else {}, "--rule")
    scored = score_files(dataset, truth, predictions, mode, rules)
    if as_json:
        typer.echo(json.dumps(asdict(scored)))
    else:
        typer.echo(
            f"{scored.dataset}: {scored.score:.2f} % of {scored.samples} predictions "
            f"({scored.mode} scoring; the test file has {scored.questions} questions)"
        )


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Run folders, or folders of them such as a sweep's.", metavar="RUN..."),
    ],
    out: Annotated[Path | None, typer.Option(help="The report's folder [RUN/report].")] = None,
) -> None:
    """Compare runs in one self-contained HTML page, with every figure and table as files beside it.

    Writes index.html, figures (PNG, SVG) and tables (Markdown, CSV, LaTeX): per setting, over all
    settings, and the significant differences between methods. Only reads the run folders. The last line
    printed is the page's path.
    """
    from fcit import report as reports

    page = reports.write(folders, out or folders[0] / "report")
    _print_results(folders)
    typer.echo(str(page.resolve()))


for command in (why, sweep, export, chat, serve, bench, doctor):
    app.command()(command)


def _print_results(folders: list[Path]) -> None:
    """One table per setting, one row per method."""
    from rich.markup import escape

    from fcit.report import overview

    columns = ("Last", "Avg", "forgetting", "zero-shot", "chance", "routing")
    for title, rows in overview(folders).items():
        results = table("method", *columns, title=title)
        results.columns[0].no_wrap = True
        for label, values in rows:
            results.add_row(escape(label), *values)
        show(results)


def main() -> None:
    """Run the command line; user errors print one line and exit with status 2."""
    try:
        app(standalone_mode=True)
    except FcitError as error:
        typer.echo(f"fcit: {error}", err=True)
        sys.exit(2)
    except OSError as error:  # for example a folder that cannot be written, or a full disk
        typer.echo(f"fcit: {error.filename or 'cannot go on'}: {error.strerror or error}", err=True)
        sys.exit(2)
