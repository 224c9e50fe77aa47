"""The commands that make runs: recipe, run, evaluate, sweep."""

import re
import signal
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from fcit.cli.options import Changes, Device, Folder, Method, Recipe, stoppable
from fcit.cli.results import report, show_results
from fcit.cli.screen import show, show_table
from fcit.recipe.shipped import recipes
from fcit.types import FcitError, did_you_mean
from fcit.watch import Terminal


def recipe(
    name: Annotated[
        str | None, Argument(autocompletion=lambda: list(recipes()), metavar="NAME")
    ] = None,
) -> None:
    """Print a recipe to start from; without NAME, list the recipes that come with fcit.

    Example:  fcit recipe demo > demo.toml
    """
    files = recipes()
    if name is None:
        heads = [file.read_text("utf-8").partition("\n#\n")[0] for file in files.values()]
        about = [
            re.sub(r"\n# ?", " ", head).removeprefix("# ").partition(". ")[0] for head in heads
        ]
        show_table(zip(files, about, strict=True), "NAME", "recipe")
        show(
            "fcit recipe NAME > FILE writes one to a file, for example: fcit recipe demo > demo.toml"
        )
    elif name.removesuffix(".toml") in files:
        show(files[name.removesuffix(".toml")].read_text("utf-8").rstrip())
    else:
        raise FcitError(
            f"no recipe {name!r} comes with fcit{did_you_mean(name, files)}; fcit recipe lists them"
        )


def _help_keys(asked: bool) -> None:
    if asked:
        from fcit.recipe.keys import sections

        for title, keys in sections():
            described = [
                re.sub(r"\[([^]]+)\]\([^)]+\)", r"docs/\1", key.description) for key in keys
            ]
            rows = [
                (key.name, key.default, text) for key, text in zip(keys, described, strict=True)
            ]
            show(title)
            show_table(rows, "key", "default", "what it does")
        raise typer.Exit


def run(
    recipe: Recipe,
    method: Method = None,
    engine: Annotated[
        Literal["local", "flower"] | None,
        Option(help="Where clients run: worker processes, or Flower's simulation [local]."),
    ] = None,
    changes: Changes = None,
    out: Annotated[
        Path | None, Option(help="The run's folder [runs/SETTING-METHOD-seedN].")
    ] = None,
    resume: Annotated[
        bool, Option("--resume", help="Continue an interrupted run; RECIPE may be its folder.")
    ] = False,
    help_keys: Annotated[
        bool,
        Option(
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

    Federated optimizers work with every federated method except fedsa_lora, which takes fedavg and
    fedprox: --set federation.optimizer=NAME takes fedavg, fedprox, scaffold, fedavgm, fedadam, fedyogi or
    fedadagrad. --set federation.average=product averages
    B·A instead of A and B separately.

    RECIPE may be the name of a recipe that comes with fcit (`fcit recipe` lists them). Its relative paths
    start in the working folder.

    Example:  fcit run demo

    Example:  fcit run demo.toml --method disco --set federation.rounds=2 --out runs/second

    Example:  fcit run --resume runs/first
    """
    from fcit.recipe import config
    from fcit.rounds.runfolder import RunFolder

    elsewhere, read = out is not None and out.resolve() != recipe.resolve(), config.load
    begun = resume and not elsewhere and RunFolder(recipe).config.is_file()
    if recipe.is_dir() and (begun or recipe.as_posix() not in recipes()):
        if not resume or (out and out.resolve() != recipe.resolve()):
            raise FcitError(
                f"{recipe}: is a folder, not a recipe; fcit run --resume {recipe} continues the run in it"
            )
        RunFolder(recipe).require()
        recipe, out, read = RunFolder(recipe).config, recipe, config.load_run
    elif resume and not recipe.exists() and recipe.as_posix() not in recipes():
        raise FcitError(f"{recipe}: no such run folder or recipe")
    extra = [f"federation.engine={engine}"] if engine else []
    loaded = read(recipe, [*(changes or []), *extra], method)
    with stoppable("continue with --resume, or without it if the run had not begun"):
        from fcit.runs import api  # takes a second or more: after the recipe's mistakes were named

        done = api.run(loaded, out, resume, Terminal())
    show_results([done.folder])
    show(f"run folder: {done.folder}")


def demo(
    out: Annotated[Path, Option(help="The folder of the runs and the report.")] = Path("runs/demo"),
) -> None:
    """Train two methods on a short recipe (`fcit recipe demo`), and write a report that compares them.

    It takes minutes, and needs no data, no GPU and no network. The same command continues an interrupted
    demo. The last line printed is the report's path.

    Example:  fcit demo
    """
    from fcit.recipe import config

    folders = [out / method for method in ("finetune", "disco")]
    with stoppable("the same command continues"):
        from fcit.runs import api

        for folder in folders:
            loaded = config.load(recipes()["demo"], [], folder.name)
            api.run(loaded, folder, folder.is_dir(), Terminal())
    report(folders, out / "report")


def import_reference(
    checkpoint: Annotated[
        Path, Argument(help="A folder llava_lora_finetune_epoch_N.", metavar="FOLDER")
    ],
    recipe: Annotated[Path, Option(help="A recipe that names data, base model and datasets.")],
    out: Annotated[Path, Option(help="The run's folder; new or empty.")],
    changes: Changes = None,
) -> None:
    """Turn a checkpoint of FCIT's reference implementation into a run.

    `fcit evaluate`, `chat`, `serve` and `export` take it. Slots become subspaces, and questions are
    routed as the reference does. No code in the files is run.

    Example:  fcit import-reference llava_lora_finetune_epoch_9 --recipe recipes/paper/task-hom.toml --out new
    """  # noqa: E501
    from fcit.recipe import config as configs
    from fcit.runs.imported import import_reference as make

    show(str(make(checkpoint, configs.load(recipe, changes or ()), out).folder))


def evaluate(folder: Folder, device: Device = "") -> None:
    """Answer the test sets again with a run's saved state, and rewrite the last row of its matrix.

    The same state gives the same answers on the same device, so this checks a finished run. matrix.json
    says where the row was computed, if that is not where the run was (`evaluated`).

    Example:  fcit evaluate runs/first
    """
    from fcit.runs import api
    from fcit.runs.session import Session

    session = Session(api.load(folder).config, folder, Terminal())
    with stoppable("run the same command again"):
        session.evaluate(device)
    show_results([folder])


def sweep(
    file: Annotated[
        Path,
        Argument(
            help="A sweep file (TOML), or the name of one that comes with fcit; see docs/compare.md."
        ),
    ],
    out: Annotated[
        Path | None, Option(help="The sweep's folder, instead of the file's `out`.")
    ] = None,
    jobs: Annotated[
        int,
        Option(
            min=0,
            help="Runs at a time; 0: one per GPU, without GPUs one per core, and one where a recipe "
            "names a GPU or a device map.",
        ),
    ] = 0,
    only: Annotated[
        list[str] | None,
        Option(metavar="NAME|METHOD", help="Run only this name or method; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Check the file and show what is left to run.")
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
        rows: list[tuple[str, str, str]] = []
        for status in (statuses := sweeps.survey(runs)):
            at = status.position
            begun = f"stage {at.stage + 1}, round {at.rounds}" if at else "to do"
            progress = "finished" if status.finished else begun
            rows.append((str(status.run), progress, str(status.run.folder)))
        show_table(rows, "run", "progress", "folder")
        left = sum(not status.finished for status in statuses)
        show(f"{left} of {len(statuses)} runs are left")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop the child processes too
    with stoppable("the same command continues"):
        failed = sweeps.run(runs, jobs, Terminal())
    folder = runs[0].folder.parents[2]
    show(f"{len(runs) - len(failed)} of {len(runs)} runs are finished")
    show(f"the tables: fcit report {folder}")
    if failed:
        raise typer.Exit(1)
