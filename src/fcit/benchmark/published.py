"""The published split: one JSON of training records per client, where a data folder has it."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fcit.benchmark.datasets import Dataset, find, parse_training_file
from fcit.benchmark.layout import PARTITIONS
from fcit.benchmark.records import RecordError, image_path, sound
from fcit.benchmark.settings import GROUPS, TASK_ORDER
from fcit.types import FcitError, Sample, Task

KINDS: dict[str, tuple[str, ...]] = {
    "Task-related/seq": TASK_ORDER,
    "Capability-related/cap": tuple(GROUPS),
}
"""The folders below PARTITIONS, and the tasks that their Task1, Task2, ... are."""


def folder(root: Path, task: Task, beta: float) -> Path | None:
    """Where a task's published client files would be; None where none are published.

    Task numbers are the publishers', whatever order a run takes: a dataset's place in the task
    order, a group's place among the capability groups.
    """
    for kind, names in KINDS.items():
        if task.name in names and task.datasets == GROUPS.get(task.name, (task.name,)):
            number = names.index(task.name) + 1
            return root / PARTITIONS / kind / f"{float(beta)}" / f"Task{number}"
    return None


def folders(root: Path) -> Iterator[tuple[Path, Task | None]]:
    """Every folder of client files that `root` has, with its task (None: of no task or beta)."""
    for kind, names in KINDS.items():
        known = {
            f"Task{number}": Task(name, GROUPS.get(name, (name,)))
            for number, name in enumerate(names, 1)
        }
        for path in sorted((root / PARTITIONS / kind).glob("*/*")):
            if path.is_dir():
                yield path, known.get(path.name) if _is_beta(path.parent.name) else None


def _is_beta(text: str) -> bool:
    try:
        return str(float(text)) == text
    except ValueError:
        return False


def client_files(folder: Path) -> dict[int, Path]:
    """The client files of a folder by their number, in ascending order."""
    files = {
        int(path.stem[7:]): path
        for path in folder.glob("client_*.json")
        if path.stem[7:].isdecimal() and path.stem == f"client_{int(path.stem[7:])}"
    }
    return dict(sorted(files.items()))


def published(root: Path, task: Task, beta: float, clients: int) -> list[list[Sample]] | None:
    """Every client's training samples of a task from the published split; None where absent.

    Files of a capability mix datasets; a record's dataset is known by its image path (and, as
    A-OKVQA and Grounding share COCO, by a box in its conversation). Raises FcitError on malformed
    files, and where the files are for another number of clients.
    """
    path = folder(root, task, beta)
    if path is None or not path.is_dir():
        return None
    files = client_files(path)
    lacking = next((client for client in range(clients) if client not in files), None)
    if lacking is not None or len(files) != clients:
        lacks = f"client_{lacking}.json is missing: restore it, or move the split away"
        advice = f"set it to {len(files)} or move the split away" if lacking is None else lacks
        raise FcitError(
            f"{path}: a published split for {len(files)} clients, but federation.clients = {clients}; "
            + advice
        )
    tell = dataset_teller(root, task)
    return [sound(parse_training_file(path, tell)) for path in files.values()]


def dataset_teller(root: Path, task: Task) -> Callable[[dict[str, Any]], Dataset]:
    """A function that gives the dataset of a record among those of a task, and raises RecordError where
    it is of none."""
    return partial(_dataset_of, [find(name, root) for name in task.datasets])


def _dataset_of(datasets: Sequence[Dataset], record: dict[str, Any]) -> Dataset:
    path = image_path(record)
    fitting = [dataset for dataset in datasets if dataset.images == path.split("/")[0]]
    if len(fitting) > 1:  # a rule's mark decides; without one, it is of a rule that has none
        conversation = str(record.get("conversations"))
        marked = [
            dataset
            for dataset in fitting
            if dataset.rule.mark and dataset.rule.mark.search(conversation)
        ]
        fitting = marked or [dataset for dataset in fitting if not dataset.rule.mark]
    if len(fitting) != 1:
        names = ", ".join(dataset.name for dataset in datasets)
        raise RecordError(f"image: {path!r} is of none of {names}")
    return fitting[0]
