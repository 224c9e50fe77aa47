"""The general questions: 300 held-out ones of the mini model's pretraining mixture, or a data folder's.

Asked before and after a run, they show how much of what the base model knew is lost by tuning. No client
ever trains on them. `tools/mini_models` wrote those of the mini model.
"""

from dataclasses import replace
from pathlib import Path

from fcit.benchmark import datasets, layout
from fcit.benchmark.datasets import Dataset
from fcit.types import FcitError, naming

GENERAL = "pretraining-mixture"
"""The dataset's name."""

QUESTIONS = Path(__file__).parent / "questions"
"""A data folder as any other, with a test file only."""

COUNT = 300


def questions(folder: str) -> dict[str, tuple[Path, Dataset]]:
    """The data folder and dataset of the questions, by their name in results: all datasets of a folder
    that have a test file, as `general-NAME`; without one, those of the mini model.

    Raises FcitError for what is no data folder, or has no questions.
    """
    if not folder:
        return {GENERAL: (QUESTIONS, datasets.find(GENERAL))}
    root = Path(folder)
    with naming("evaluation.general"):
        layout.require_folder(root)
        found = [datasets.find(name, root) for name in datasets.present(root)]
        asked = [dataset for dataset in found if dataset.file(root, "test").is_file()]
        if not asked:
            raise FcitError(f"{root}: no dataset has a test file")
    return {
        f"general-{each.name}": (root, replace(each, name=f"general-{each.name}")) for each in asked
    }
