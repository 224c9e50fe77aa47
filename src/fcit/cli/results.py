"""The commands that compare and score: report, score."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from fcit.cli.options import Json, Scoring
from fcit.cli.screen import show, show_json, show_table
from fcit.types import FcitError


def score(
    dataset: Annotated[str, Option(help="IconQA, OCR-VQA, Flickr30k, ...")],
    truth: Annotated[
        Path, Option(help="The dataset's test file (captions: the COCO file).", metavar="FILE")
    ],
    predictions: Annotated[
        Path, Option(help='JSON lines {"question_id": ..., "text": ...}.', metavar="FILE")
    ],
    mode: Annotated[
        Scoring, Option(help="strict: correct; reference: as the published code scores.")
    ] = "strict",
    rule: Annotated[
        str,
        Option(
            help="A Python file with a scoring rule of your own (it is run); NAME=FILE works too.",
            metavar="FILE",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Score predictions made by any model on a dataset's test questions, in percent.

    Strict scoring needs exactly one answer per question; reference scoring, like the published code,
    counts over the answers in the file.

    Example:  fcit score --dataset IconQA --truth val.json --predictions answers.jsonl
    """
    from fcit.benchmark.predictions import score as score_files
    from fcit.benchmark.rules import load

    name, _, file = rule.partition("=")
    if file and not Path(rule).is_file():
        if name != dataset:
            raise FcitError(f"--rule: names the dataset {name!r}, but --dataset is {dataset!r}")
        rule = file
    rules = load({dataset: rule} if rule else {}, "--rule")
    scored = score_files(dataset, truth, predictions, mode, rules)
    if as_json:
        show_json(scored)
    else:
        show(
            f"{scored.dataset}: {scored.score:.2f} % of {scored.samples} predictions "
            f"(rule {scored.rule}, {scored.mode} scoring; the test file has {scored.questions} questions)"
        )


def report(
    folders: Annotated[
        list[Path],
        Argument(help="Run folders, or folders of them such as a sweep's.", metavar="RUN..."),
    ],
    out: Annotated[Path | None, Option(help="The report's folder [RUN/report].")] = None,
    no_examples: Annotated[
        bool, Option("--no-examples", help="Show no test sample: no image, prompt or answer.")
    ] = False,
) -> None:
    """Compare runs in one self-contained HTML page, with every figure and table as files beside it.

    Writes index.html, figures (PNG, SVG) and tables (Markdown, CSV, LaTeX): per setting, over all
    settings, and the significant differences between methods. The page shows up to three test samples per
    dataset, with their images; --no-examples leaves them out. Changes nothing that a run wrote; without
    --out the report goes into the first run's folder. The last line printed is the page's path.

    Example:  fcit report runs/first runs/second --out runs/report
    """
    from fcit.report.page import write

    page = write(folders, out or folders[0] / "report", with_examples=not no_examples)
    show_results(folders)
    show(str(page.resolve()))


def show_results(folders: list[Path]) -> None:
    """One table per setting, one row per method."""
    from fcit.report.result_tables import overview

    for part in overview(folders):
        show(part.title)
        rows = [(line.label, *(cell.text for cell in line.cells)) for line in part.lines]
        show_table(rows, "method", numbers=part.columns)
        for note in part.notes:
            show(note)
