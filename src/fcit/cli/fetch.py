"""`fcit data fetch`: data of a hub into a data folder."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from fcit.cli.options import pairs, stoppable
from fcit.cli.screen import show
from fcit.types import FcitError
from fcit.watch import Terminal

SHOWN = 20
"""So many problems are listed; fcit data check lists all."""


def fetch(
    name: Annotated[
        str, Argument(help="fcit, ucit, mllm-dcl, or a dataset repository of the hub, OWNER/NAME.")
    ],
    out: Annotated[Path, Option(help="The data folder to write; new or empty.", metavar="DIR")],
    only: Annotated[
        list[str] | None, Option(help="Only this dataset; repeatable.", metavar="NAME")
    ] = None,
    column: Annotated[
        list[str] | None,
        Option(
            metavar="KIND=NAME",
            help="In parquet tables, the column of the image, question or answer; repeatable.",
        ),
    ] = None,
) -> None:
    """Download data from the Hugging Face hub (or $HF_ENDPOINT) into a data folder, and check it.

    Downloads stay in the Hugging Face cache and continue after an interruption. Archives are unpacked
    without links, and only files that records name. A repository may also hold parquet tables with an
    image, a question and an answer. Finally it lists each part's licence and source, and the images
    that you must get yourself, with their page. No file of a repository is run.

    Example:  fcit data fetch fcit --only ImageNet-R --only ArxivQA --out my-fcit

    Example:  fcit data fetch OWNER/NAME --column question=query --out my-data
    """
    from fcit.benchmark.fetch import fetch as get

    columns = pairs(column, "--column", "KIND=NAME", "question=query")
    with stoppable("the same command goes on with what it has downloaded"):
        done = get(name, out, only or (), columns, Terminal())
    for dataset, counts in done.report.counts.items():
        read = ", ".join(f"{count} {split}" for split, count in counts.items())
        show(f"{dataset}: {read}, rule {done.report.rules.get(dataset, '?')}")
    for what, source in done.parts:
        show(f"{what}: {source.name} at {source.commit[:8]}, licence: {source.licence}")
    for dataset in done.absent:
        show(f"{dataset}: no records were found")
    for lack in done.lacks:
        show(
            f"bring yourself: {lack.images} of {lack.of} images of {lack.dataset} from {lack.page} into "
            f"{out / lack.folder}"
        )
    problems = done.report.problems
    for problem in problems[:SHOWN]:
        show(": ".join(filter(None, (problem.file, problem.record, problem.what))))
    show(f"wrote {out}; SOURCES.md in it says where its parts come from")
    if problems:
        raise FcitError(
            f"{out}: is written, but has problems ({len(problems)}): fcit data check {out} lists them, "
            "--fix writes a clean copy"
        )
