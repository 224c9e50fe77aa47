"""A run's answers as other evaluation code reads them: MCITlib's scripts, and lmms-eval's `from_log`."""

from pathlib import Path
from typing import Any, Literal

from fcit.benchmark import records
from fcit.files import folder_aside, write_json, write_lines
from fcit.runs.api import Run
from fcit.types import FcitError

Form = Literal["mcitlib", "lmms-eval"]


def answers(run: Run, form: Form, out: Path) -> None:
    """Write a file for every dataset and stage that was answered.

    mcitlib: DATASET/STAGE/merge.jsonl, what its llava/eval/CoIN scripts take as --result-file; question
    ids are those of the test file, numbers where they are numbers there. lmms-eval: STAGE/DATASET.json,
    what its model `from_log` reads; doc_id is the place of an answer among the dataset's, from 0, and
    the task has the dataset's name. Raises FcitError for a run without answers, and where a test file
    that says the form of the ids is missing.
    """
    files = sorted(run.files.path.glob("predictions/*/*.jsonl"))
    if not files and run.config.evaluation.where == "clients":
        raise FcitError(
            f"--predictions: {run.folder} has none: its clients scored their own test samples"
        )
    if not files:
        raise FcitError(f"--predictions: {run.folder} holds no answers; evaluate the run first")
    name = run.files.path.absolute().name
    with folder_aside(out) as folder:
        for path in files:
            stage, dataset = path.parent.name, path.stem
            rows = run.files.answers(stage, dataset)
            if form == "lmms-eval":
                logs = [{"doc_id": at, "resps": [[row.prediction]]} for at, row in enumerate(rows)]
                args = {"model": "fcit", "model_args": name, "limit": None}
                log = {"args": args, "model_configs": {"task": dataset}, "logs": logs}
                write_json(folder / stage / f"{dataset}.json", log)
                continue
            ids = _ids(run, dataset)
            lines = [
                {
                    "question_id": ids.get(row.question_id, row.question_id),
                    "prompt": row.prompt,
                    "text": row.prediction,
                    "answer_id": f"{dataset}-{stage}-{at}",
                    "model_id": name,
                    "metadata": {},
                }
                for at, row in enumerate(rows)
            ]
            write_lines(folder / dataset / stage / "merge.jsonl", lines)


def _ids(run: Run, dataset: str) -> dict[str, Any]:
    """A test file's question ids as they are in it, by their text."""
    experiment = run.experiment
    general = experiment.folder.general
    root = general[dataset][0] if dataset in general else experiment.root
    path = experiment.dataset(dataset).file(root, "test")
    if not path.is_file():
        raise FcitError(
            f"--predictions mcitlib: {path}: does not exist, and it says whether question ids are numbers"
        )
    rows = [row for row in records.stream(path) if isinstance(row, dict)]
    return {str(row["question_id"]): row["question_id"] for row in rows if "question_id" in row}
