"""The command line: every command is a few lines over the Python API, and imports only what it needs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

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
data = typer.Typer(no_args_is_help=True, help="Make, check and look at data folders.")
app.add_typer(data, name="data")

Recipe = Annotated[Path, typer.Argument(help="A recipe (TOML); see the folder recipes/.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change any recipe key, e.g. federation.rounds=2."
    ),
]


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
        str | None, typer.Option(help="Where clients run: local (worker processes) or flower.")
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

    Example:  fcit run recipes/mini/task-hom.toml --method disco --set federation.rounds=2
    """
    from fcit import api, config

    extra = [f"federation.engine={engine}"] if engine else []
    loaded = config.load(recipe, [*(changes or []), *extra], method)
    with _stoppable("go on with --resume"):
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
    from fcit import api
    from fcit.session import Session

    found = api.load(folder)
    session = Session(found.config, folder, Terminal())
    with _stoppable("run the same command again"):
        session.prepare()
        session.evaluate()
    _print_results([folder])


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="One or more runs' folders.", metavar="RUN...")
    ],
    out: Annotated[Path | None, typer.Option(help="The report's folder [RUN/report].")] = None,
) -> None:
    """Make one self-contained HTML page of one or more runs, with every figure and table beside it.

    Beside index.html stand the figures (PNG, SVG) and the table (Markdown, CSV, LaTeX). Nothing is run
    again. The last line printed is the page's path.
    """
    from fcit import report as reports

    page = reports.write(folders, out or folders[0] / "report")
    _print_results(folders)
    typer.echo(str(page.resolve()))


@app.command()
def doctor() -> None:
    """Show what this machine has, and what each missing part would switch off."""
    from fcit.doctor import examine

    examine()


@data.command()
def mini(
    folder: Annotated[
        Path, typer.Argument(help="Where to write it (new or empty).", metavar="DIR")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Of all its random choices.")] = 0,
    train: Annotated[int, typer.Option(min=1, help="Training samples per dataset.")] = 1000,
    test: Annotated[int, typer.Option(min=1, help="Test samples per dataset.")] = 200,
) -> None:
    """Write the mini suite: twelve procedural miniatures in the official data layout."""
    from fcit.benchmark import mini as suite

    watch = Terminal()
    with watch.bar("mini suite", 12 * (train + test)) as step:
        suite.write(folder, seed, train, test, progress=lambda done, _: step(done))
    watch.say(f"wrote {folder}; look at it with: fcit data check {folder}")


@data.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A data folder.", metavar="DIR")],
) -> None:
    """Validate a data folder: every record and image; exit with 2 if anything is wrong.

    Looks for missing or undecodable images, bad JSON, missing fields, duplicate ids, image paths that
    leave the folder, and test samples that are also training samples.
    """
    from fcit.benchmark import check as checks

    watch = Terminal()
    with watch.bar("records", 1) as step:
        found = checks.check(folder, progress=lambda done, total: step(done / max(total, 1)))
    for name, parts in found.counts.items():
        typer.echo(f"{name}: " + ", ".join(f"{count} {part}" for part, count in parts.items()))
    if found.absent:
        typer.echo(f"not here: {', '.join(found.absent)}")
    for problem in found.problems:
        typer.echo(": ".join(filter(None, (problem.file, problem.record, problem.what))))
    if found.problems:
        raise FcitError(f"{folder}: {len(found.problems)} problems, listed above")
    typer.echo("nothing wrong")


@data.command()
def partition(
    recipe: Recipe,
    changes: Changes = None,
    out: Annotated[Path | None, typer.Option(help="Where the picture goes (.png or .svg).")] = None,
) -> None:
    """Show how many samples of each dataset every client holds, and draw them.

    Example:  fcit data partition recipes/mini/task-hom.toml --set setting.beta=0.5
    """
    from rich.console import Console
    from rich.table import Table

    from fcit import config
    from fcit.experiment import Experiment
    from fcit.report import save_partition

    experiment = Experiment(config.load(recipe, changes or []))
    experiment.prepare(Terminal())
    counts = experiment.counts(experiment.setting)
    table = Table("client", *counts, "all")
    for client, row in enumerate(zip(*counts.values(), strict=True)):
        table.add_row(str(client), *map(str, row), str(sum(row)))
    table.add_section()
    table.add_row("all", *(str(sum(part)) for part in counts.values()), "")
    Console().print(table)
    picture = out or Path(f"partition-{recipe.stem}.png")
    save_partition(counts, picture)
    typer.echo(f"drawn in {picture}")


@data.command()
def pretrain(
    folder: Annotated[Path, typer.Argument(help="Where the checkpoints go.", metavar="DIR")],
    seed: Annotated[int, typer.Option(min=0, help="Of all its random choices.")] = 0,
) -> None:
    """Make the mini model and the mini CLIP from nothing, on the generic mixture.

    Goes on where it stopped when DIR holds an unfinished pretraining.
    """
    from fcit.pretrain import pretrain as make

    with _stoppable("the same command goes on from there"):
        make(folder, seed=seed)


@contextmanager
def _stoppable(then: str) -> Iterator[None]:
    """Ctrl-C ends in one line that says how to go on, and exit status 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"fcit: stopped; what was finished is kept; {then}", err=True)
        raise typer.Exit(130) from None


def _print_results(folders: list[Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    from fcit.report import summary

    rows = summary(folders)
    names = dict.fromkeys(f"{row.setting}, {row.scoring} scoring" for row in rows)
    columns = ("Last", "Avg", "forgetting", "zero-shot", "chance", "routing")
    table = Table("method", *columns, title="; ".join(names))
    for row in rows:
        values = (row.last, row.avg, row.forgetting, row.zero_shot, row.chance, row.routing)
        table.add_row(row.method, *map(_number, values))
    Console().print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


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


if __name__ == "__main__":
    main()
