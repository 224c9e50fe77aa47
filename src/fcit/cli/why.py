"""`fcit why`: where a dataset's test questions were routed, and who trained what answered them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from fcit.cli.options import Folder, Json
from fcit.cli.screen import show, show_json, show_table
from fcit.types import FcitError

if TYPE_CHECKING:
    from fcit.use.why import Explained, Why

SHOWN_IDS = 10
"""Ids of questions with wrong answers that are listed."""


def why(
    folder: Folder,
    dataset: Annotated[str, Argument(help="A dataset of the run, e.g. IconQA.")],
    id: Annotated[
        str | None, Option("--id", metavar="ID", help="Explain this question (its question_id).")
    ] = None,
    wrong: Annotated[
        bool,
        Option(
            "--wrong", help="Explain every question that went to a subspace of another dataset."
        ),
    ] = False,
    stage: Annotated[
        int | None, Option(min=1, help="The stage after which it was asked [the last].")
    ] = None,
    limit: Annotated[int, Option(min=1, help="Questions to show at most.")] = 20,
    html: Annotated[
        Path | None,
        Option(metavar="FILE", help="Write a page with the images too (one HTML file)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Explain why test questions were answered by the subspaces they were routed to.

    Shows who trained each subspace, and for how many of the dataset's questions it had the largest share.
    With --id or --wrong also each question: prompt, image, answer, truth, and the cosine and share of
    every subspace (--json prints all of them). Reads the run's files only; no model is loaded.

    Example:  fcit why runs/first CLEVR-Math --wrong --html why.html
    """
    from fcit.runs import api
    from fcit.use import why as explain

    if id is not None and wrong:
        raise FcitError("--id, --wrong: give one of the two")
    routing = explain.why(api.load(folder), dataset, id, stage)
    if html:
        explain.write_page(routing, html, limit)
    if as_json:
        show_json(routing)
        return
    _print(routing, limit if wrong or id is not None else 0)
    if html:
        empty = "" if routing.questions else " (no question is on it; --id ID adds one)"
        show(f"page: {html}{empty}")


def _print(routing: Why, limit: int) -> None:
    names = {subspace.name: subspace.name + " *" * subspace.own for subspace in routing.subspaces}
    show(
        f"{routing.dataset} after stage {routing.stage}: {routing.asked} questions, {routing.method}"
    )
    show_table(
        (
            (
                names[subspace.name],
                "\n".join(map(str, subspace.trained)),
                str(subspace.questions),
                "" if subspace.score is None else f"{subspace.score:.1f}",
            )
            for subspace in routing.subspaces
        ),
        *("subspace", "trained on"),
        numbers=("questions", "score %"),
    )
    show(routing.verdict)
    if not routing.recorded:
        show("Cosines were not recorded by the version of fcit that made these predictions.")
    tasks = {
        subspace.name: ", ".join(entry.task for entry in subspace.trained)
        for subspace in routing.subspaces
    }
    for question in routing.questions[:limit]:
        own = (
            "a subspace of another dataset" if question.misrouted else "one trained on its dataset"
        )
        first = f"subspace {question.factors[0].subspace}" if routing.chosen else "every subspace"
        to = own if routing.trainers_known and routing.chosen else first
        _print_question(question, to, names, tasks)
    if limit and routing.questions:
        show(f"\n{routing.gate}")
    if not (limit and routing.questions):
        shown = ", ".join(routing.wrong[:SHOWN_IDS]) + ", ..." * (len(routing.wrong) > SHOWN_IDS)
        show(f"wrong answers: {shown or 'none'}. --id ID explains a question.")
        if routing.misrouted:
            show("--wrong explains those that went to a subspace of another dataset.")
    elif (more := len(routing.questions) - limit) > 0:
        show(f"{more} more questions are not shown (--limit).")


def _print_question(
    question: Explained, routed: str, names: dict[str, str], tasks: dict[str, str]
) -> None:
    from fcit.use.why import SHOWN

    verdict = "right" if question.right else "wrong"
    show(
        f"\nquestion {question.id}, routed to {routed}",
        f"prompt: {question.prompt}",
        f"image: {question.image}",
        f"answer: {question.answer} ({verdict}, score {question.score:g})",
        f"truth: {' | '.join(question.truth)}",
    )
    show_table(
        (
            (
                names[factor.subspace],
                tasks[factor.subspace],
                "" if factor.cosine is None else f"{factor.cosine:.4f}",
                f"{factor.share:.4f}",
            )
            for factor in question.factors[:SHOWN]
        ),
        *("subspace", "trained on"),
        numbers=("cosine", "share"),
    )
    if (rest := len(question.factors) - SHOWN) > 0:
        show(f"{rest} more subspaces gave less.")
