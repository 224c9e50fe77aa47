"""Every command and every piece of code in every document works as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

import documents
from documents import PAGES, RECIPES, SCRIPTS, Reader, Step, name

NOT_RUN = {
    "make install": "installs",
    "make test": "runs these tests",
    "pip install": "needs a package index",
    "export": "for `flwr run`",
    "flwr run": "needs Ray; tests/flower/test_flwr_run.py runs it",
    "HF_HOME=$PWD/huggingface hf download": "needs the hub",
    "HF_HUB_OFFLINE=1 ./start": "needs the hub",
    "./": "a federation of processes; tests/flower/test_deployment.py starts one",
    "FCIT_RUN=$PWD/second ./run": "a federation of processes",
    ".venv/bin/python benchmarks/": "takes minutes to hours",
    "python tools/": "takes minutes, or writes a page",
    "fcit bench": "takes minutes",
    "fcit sweep": "takes hours, except with --dry-run",
    "fcit report runs/comparison": "reads a sweep that takes hours",
    "fcit report runs/grid": "reads a sweep that takes hours",
    "fcit run recipes/paper/": "needs the official data, the hub and a GPU",
    "fcit run recipes/real/": "needs the official data and the hub, most of them a GPU",
    "fcit run recipes/mini/": "takes minutes; the slow test runs it",
}
"""Commands that are not run here, by how they begin, and why. What they name must exist all the same."""

OTHERS = {
    "docs/models.md": "converts LLaVA's original checkpoint; tests/models/test_llava_original.py does so",
}
"""Pages whose Python code is not run here, and why."""


def exception(step: Step) -> str:
    if "--dry-run" in step.text:
        return ""
    return next((begin for begin in NOT_RUN if step.text.startswith(begin)), "")


@pytest.fixture(scope="module")
def runs() -> dict[str, Path]:
    """Finished runs, by their commands: a later document that gives the same command gets a copy."""
    return {}


def follow(reader: Reader, steps: list[Step], skip: tuple[str, ...] = ()) -> None:
    with reader.reading():
        try:
            for step in steps:
                begin = exception(step) if step.language == "sh" else ""
                if begin and begin not in skip:
                    documents.parse(step)
                elif not (step.language == "python" and step.document in OTHERS):
                    reader.follow(step)
        finally:
            reader.close()


WITH_CODE = [path for path in [*PAGES, *RECIPES, *SCRIPTS] if documents.steps(path)]


@pytest.mark.parametrize("path", WITH_CODE, ids=name)
def test_a_document_works_as_it_stands(path: Path, tmp_path: Path, runs: dict[str, Path]) -> None:
    follow(Reader(tmp_path, runs), documents.steps(path))


def test_the_examples_of_the_help_texts_work(tmp_path: Path, runs: dict[str, Path]) -> None:
    follow(Reader(tmp_path, runs), documents.helped())
