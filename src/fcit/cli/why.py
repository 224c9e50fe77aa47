"""`fcit why`: where a dataset's test questions were routed, and who trained what answered them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcit.cli.options import Folder, console
from fcit.types import FcitError

if TYPE_CHECKING:
    from fcit.use.why import Explained, Why


def why(
    folder: Folder,
    dataset: Annotated[str, typer.Argument(help="A dataset of the run, e.g. IconQA.")],
    id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Explain this question (its question_id)."),
    ] = None,
    wrong: Annotated[
        bool,
        typer.Option(
            "--wrong", help="Explain every question that went to a subspace of another dataset."
        ),
    ] = False,
    stage: Annotated[
        int | None, typer.Option(min=1, help="The stage after which it was asked [the last].")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Questions to show at most.")] = 20,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with the images too (one HTML file)."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with all questions and subspaces.")
    ] = False,
) -> None:
    """Explain why test questions were answered by the subspaces they were routed to.

    Shows who trained each subspace and how many questions of the dataset it won, that is, gave the
    largest share of the answer. With --id or --wrong also each question: prompt, image, answer, truth,
    and the cosine and share of every subspace. Reads the run's files only; no model is loaded.

    Example:  fcit why runs/first CLEVR-Math --wrong --html why.html
    """
    import json
    from dataclasses import asdict

    from fcit.runs import api
    from fcit.use import why as explain

    if id is not None and wrong:
        raise FcitError("--id, --wrong: give one of the two")
    found = explain.why(api.load(folder), dataset, id, stage)
    if html:
        explain.write_page(found, html, limit)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False))
        return
    _print(found, limit if wrong or id is not None else 0)
    if html:
        typer.echo(f"page: {html}")


def _print(found: Why, limit: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    title = f"{found.dataset} after stage {found.stage}: {found.asked} questions, {found.method}"
    table = Table("subspace", "trained on", title=title)
    table.add_column("questions", justify="right")
    table.add_column("score %", justify="right")
    for subspace in found.subspaces:
        trained = escape("\n".join(map(str, subspace.trained)))
        score = "" if subspace.score is None else f"{subspace.score:.1f}"
        table.add_row(_mark(subspace.name, subspace.own), trained, str(subspace.questions), score)
    out.print(table)
    out.print(f"* trained on {found.dataset}. {found.verdict}", markup=False)
    if not found.recorded:
        out.print("Cosines were not recorded by the version of fcit that made these predictions.")
    own = {subspace.name for subspace in found.subspaces if subspace.own}
    tasks = {
        subspace.name: ", ".join(entry.task for entry in subspace.trained)
        for subspace in found.subspaces
    }
    for question in found.questions[:limit]:
        _print_question(question, own, tasks)
    more = len(found.questions) - limit
    if not limit:
        out.print("--wrong shows these questions, --id ID any other.")
    elif more > 0:
        out.print(f"{more} more questions are not shown (--limit).")


def _print_question(question: Explained, own: set[str], tasks: dict[str, str]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from fcit.use.why import SHOWN

    out = console()
    fields = Table.grid("", "", padding=(0, 2))
    routed = "to a subspace of another dataset" if question.misrouted else "to one of its own"
    for name, text in (
        ("question", question.id),
        ("prompt", question.prompt),
        ("image", question.image),
        ("answer", question.answer),
        ("truth", " | ".join(question.truth)),
        ("score", f"{question.score:g} ({'right' if question.right else 'wrong'})"),
        ("routed", routed),
    ):
        fields.add_row(name, escape(text))
    table = Table("subspace", "trained on")
    table.add_column("cosine", justify="right")
    table.add_column("share", justify="right")
    for at, factor in enumerate(question.factors[:SHOWN]):
        cosine = "" if factor.cosine is None else f"{factor.cosine:.4f}"
        name = _mark(factor.subspace, factor.subspace in own)
        table.add_row(
            name, escape(tasks[factor.subspace]), cosine, f"{factor.share:.4f}",
            style="bold" if at == 0 else "",
        )  # fmt: skip
    out.print()
    out.print(fields)
    out.print(table)
    if (rest := len(question.factors) - SHOWN) > 0:
        out.print(f"{rest} more subspaces gave less.")


def _mark(name: str, own: bool) -> str:
    return f"{name} *" if own else name
