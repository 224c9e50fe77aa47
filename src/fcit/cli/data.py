"""`fcit data ...`: make, check and look at data folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from fcit.cli.options import Changes, Images, Json, Recipe, Rules, Scoring, rule_files
from fcit.cli.screen import show, show_json, show_table
from fcit.types import FcitError
from fcit.watch import Terminal

if TYPE_CHECKING:
    from fcit.benchmark.stats import Stats

Size = Literal["tiny", "small", "full"]

data = typer.Typer(no_args_is_help=True, help="Make, check and look at data folders.")


@data.command()
def mini(
    folder: Annotated[Path, Argument(help="Where to write it (new or empty).", metavar="DIR")],
    seed: Annotated[int, Option(min=0, help="Seed of all random choices.")] = 0,
    size: Annotated[Size, Option(help="Its size, as `data.size` of a recipe.")] = "small",
    train: Annotated[
        int, Option(min=0, help="Training samples per dataset (0: as the size says).")
    ] = 0,
    test: Annotated[int, Option(min=0, help="Test samples per dataset (0: as the size says).")] = 0,
) -> None:
    """Write the mini suite: twelve procedural miniatures in the official data layout.

    One seed gives the same samples at every size; a larger suite begins with a smaller one's.

    Example:  fcit data mini my-mini --size tiny --seed 1
    """
    from fcit import suite
    from fcit.recipe import config

    section = {"size": size, "train": train, "test": test}
    counts = config.validate({"data": section}, "fcit data mini").data.counts
    watch = Terminal()
    with watch.bar("mini suite", 12 * sum(counts)) as step:
        suite.write(folder, seed, *counts, progress=lambda done, _: step(done))
    watch.say(f"wrote {folder}; look at it with: fcit data check {folder}")


@data.command()
def check(
    folder: Annotated[Path, Argument(help="A data folder.", metavar="DIR")],
    images: Images = None,
    rule: Rules = None,
    recipe: Annotated[
        Path | None, Option(help="With --client: the federation's recipe.", metavar="FILE")
    ] = None,
    fix: Annotated[
        Path | None, Option(help="Write a clean copy without the records at fault.", metavar="OUT")
    ] = None,
    client: Annotated[
        int | None,
        Option(
            min=0,
            help="Check the folder as this client's own: with data for its turns in all stages.",
        ),
    ] = None,
) -> None:
    """Validate a data folder: every record and image; exit with 2 if anything is wrong.

    Looks for missing or undecodable images, bad JSON, missing fields, test ids that repeat, image
    paths that leave the folder, and test samples that are also training samples. A published split, in
    partitioned_data/, is read too: how many records its clients have, and how many of them are not in
    the training files.

    Example:  fcit data check my-mini

    Example:  fcit data check my-mini --fix clean
    (a copy without the records at fault; its images are symbolic links to the folder's)

    Example:  fcit data check my-mini --client 3 --recipe demo.toml
    """
    from fcit.benchmark import check as checks
    from fcit.benchmark import datasets, layout

    if (recipe is None) != (client is None):
        raise FcitError("fcit data check: --client and --recipe belong together")
    if fix and (recipe or fix.exists()):
        raise FcitError(
            "--fix: a client's folder (--client) is not copied"
            if recipe
            else f"--fix: {fix}: already exists; name a folder that does not"
        )
    files, source = rule_files(rule), {"root": str(folder), "images": [*map(str, images or ())]}
    experiment = None
    if recipe and client is not None:
        from fcit.recipe import config
        from fcit.recipe.sections import DataSection
        from fcit.worker.experiment import Experiment

        own = config.checked(DataSection, source | {"rules": files}, "fcit data check")
        experiment = Experiment(config.load(recipe, foreign=True), own)
    layout.require_folder(folder)
    rules, of_client = datasets.own_rules(folder, files, "--rule"), client is not None
    report = checks.check(folder, images or (), rules, Terminal(), of_client)
    for name, counts in report.counts.items():
        read = ", ".join(f"{count} {split}" for split, count in counts.items())
        show(f"{name}: {read}, rule {report.rules[name]}" if read else f"{name}: not read")
    for folder_name, split in report.published.items():
        show(
            f"{folder_name}: {split.task}, {split.clients} clients, {split.records} records "
            f"({split.foreign} of them not among the {split.training} of the training files)"
        )
    if report.absent and not datasets.DATASETS.keys().isdisjoint(report.counts):
        show(f"not here: {', '.join(report.absent)}")
    for problem in report.problems:
        show(": ".join(filter(None, (problem.file, problem.record, problem.what))))
    if fix:
        from fcit.benchmark.repair import repair

        for file, lost in repair(folder, report, fix, images or (), rules).items():
            show(f"left out of {file}: {lost}")
        show(f"wrote {fix}; its images are symbolic links to those of {folder}")
        return
    if report.problems:
        raise FcitError(f"{folder}: problems, listed above: {len(report.problems)}")
    if experiment and client is not None:
        from fcit.engines.node import check_data

        check_data(experiment, client)
    show("nothing wrong")


@data.command("import")
def import_table(
    name: Annotated[str, Argument(help="The dataset's name.", metavar="NAME")],
    images: Annotated[
        Path, Option(help="The folder that the image column starts at.", metavar="DIR")
    ],
    out: Annotated[Path, Option(help="A data folder, new or there already.", metavar="ROOT")],
    csv: Annotated[Path | None, Option(help="The table, as CSV.", metavar="FILE")] = None,
    jsonl: Annotated[Path | None, Option(help="The table, as JSON lines.", metavar="FILE")] = None,
    test_share: Annotated[float, Option(help="The share of rows to test with.")] = 0.2,
    seed: Annotated[int, Option(min=0, help="Seed for choosing the test rows.")] = 0,
) -> None:
    """Turn a table of image, question and answer into a dataset of a data folder.

    Images are copied. Rows whose images show the same go to training or testing together. A question
    should end with a line that says what form the answer takes.

    Example:  fcit data import My-Plants --csv plants.csv --images photos --out my-data
    """
    from fcit.benchmark import tabular

    if (csv is None) == (jsonl is None):
        raise FcitError("fcit data import: give the table with either --csv or --jsonl")
    rows = tabular.read(csv, "csv") if csv else tabular.read(jsonl or Path(), "jsonl")
    train, test, copied = tabular.write(
        out, name, rows, images, test_share, seed, Terminal(), csv or jsonl
    )
    show(f"{name}: {train} train, {test} test, {copied} images in {out}")


@data.command()
def stats(
    root: Annotated[
        Path | None, Option(metavar="DIR", help="A data folder; left out: the mini suite.")
    ] = None,
    images: Images = None,
    rule: Rules = None,
    size: Annotated[Size | None, Option(help="Size of the mini suite [small].")] = None,
    seed: Annotated[int | None, Option(min=0, help="Seed of the mini suite [0].")] = None,
    scoring: Annotated[Scoring, Option(help="How chance is scored.")] = "strict",
    identity: Annotated[
        str,
        Option(
            help="A CLIP or SigLIP, folder or hub id, to compare datasets with [the mini CLIP]."
        ),
    ] = "",
    tokens: Annotated[
        bool, Option(help="Compare the datasets by identity tokens (reads images).")
    ] = True,
    as_json: Json = False,
) -> None:
    """Show what makes a data folder easy or hard: answers, chance, format lines, look-alikes.

    Per dataset: samples, distinct training prompts, the share of test prompts that training never has
    word for word, distinct answers, the commonest one's share of the training answers, and chance, the
    score of the best constant answer. A method that routes by text meets datasets that share a format
    line or are each other's nearest by their text token; datasets with similar images are
    equally hard to route by image.

    Example:  fcit data stats --size tiny

    Example:  fcit data stats --root my-data --scoring reference --no-tokens
    """
    from fcit.benchmark import datasets, layout
    from fcit.benchmark import stats as facts
    from fcit.recipe import config

    if root and seed is not None:
        raise FcitError(
            "--seed: belongs to the mini suite; a data folder of your own (--root) has no seed"
        )
    if identity and not tokens:
        raise FcitError("--identity: without effect beside --no-tokens")
    if root:
        layout.require_folder(root)
    from fcit.worker.model import ModelWorker  # takes a second: after mistakes were named

    folders = [*map(str, images or ())]
    source = {
        "root": str(root or ""),
        "size": size or "",
        "images": folders,
    }
    recipe = {
        "seed": seed or 0,
        "data": source,
        "model": {"identity": identity},
        "setting": {"name": "cap-hom"},  # all twelve datasets of the mini suite
        "evaluation": {"scoring": scoring},
    }
    worker, watch = ModelWorker(config.validate(recipe, "fcit data stats")), Terminal()
    experiment, mode = worker.experiment, worker.config.evaluation.scoring
    if not root:
        experiment.prepare(watch)
    rules = datasets.own_rules(experiment.root, rule_files(rule), "--rule")
    embed = worker.encoder.embed if tokens else None
    results = facts.collect(experiment.root, mode, embed, experiment.folder.images, rules, watch)
    if as_json:
        show_json(results)
    else:
        show(f"{experiment.root}, {mode} scoring")
        _print_stats(results)


def _print_stats(results: list[Stats]) -> None:
    """The facts as tables: numbers, format lines, nearest datasets."""
    from fcit.benchmark import stats as facts

    rows = facts.rows(results)
    first, second, *numbers = rows[0]
    show_table([[*row.values()] for row in rows], first, second, numbers=numbers)
    forms: dict[str, list[str]] = {}
    for stats in results:
        share = "" if stats.formed == 100 else f" ({stats.formed:.0f} % of its prompts)"
        forms.setdefault(stats.form, []).append(stats.dataset + share)
    lines = [(form, ", ".join(names)) for form, names in forms.items()]
    show_table(lines, "commonest last line", "of the training prompts of")
    if near := facts.neighbours(results):
        show("look-alikes, with the cosine of identity tokens")
        heads = [f"nearest by {kind} token" for kind in ("text", "image", "both")]
        show_table(near, "dataset", numbers=heads)


@data.command()
def partition(
    recipe: Recipe,
    changes: Changes = None,
    out: Annotated[Path | None, Option(help="Where the picture goes (.png or .svg).")] = None,
) -> None:
    """Show how many samples of each dataset every client holds, and draw them.

    Example:  fcit data partition recipes/mini/task-hom.toml --set setting.beta=0.5
    """
    from fcit.recipe import config
    from fcit.report.heatmaps import require_picture, save_partition
    from fcit.worker.experiment import Experiment

    picture = out or Path(f"partition-{recipe.stem}.png")
    require_picture(picture)
    experiment = Experiment(config.load(recipe, changes or []))
    experiment.prepare(Terminal())
    counts = experiment.counts(experiment.setting)
    rows = [
        *(
            (str(at), *map(str, row), str(sum(row)))
            for at, row in enumerate(zip(*counts.values(), strict=True))
        ),
        None,
        ("all", *(str(sum(samples)) for samples in counts.values()), ""),
    ]
    show_table(rows, "client", numbers=(*counts, "all"))
    save_partition(counts, picture)
    show(f"drawn in {picture}")
