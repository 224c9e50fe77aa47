"""The published split: one JSON of training records per client, where a data folder has it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fcit.benchmark.datasets import DATASETS, Dataset, parse_training_file
from fcit.benchmark.records import RecordError, sound
from fcit.benchmark.settings import GROUPS, TASK_ORDER
from fcit.types import FcitError, Sample, Task

PARTITIONS = "partitioned_data"
"""The folder of a data folder that has the published split."""

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
        lacks = f"client_{lacking}.json is missing"
        advice = f"set it to {len(files)} or move the split away" if lacking is None else lacks
        raise FcitError(
            f"{path}: a published split for {len(files)} clients, but federation.clients = {clients}; "
            + advice
        )
    tell = partial(dataset_of, task)
    return [sound(parse_training_file(path, tell)) for path in files.values()]


def dataset_of(task: Task, record: dict[str, Any]) -> Dataset:
    """The dataset of a record among those of its task. Raises RecordError where it is of none."""
    first = str(record.get("image", "")).removeprefix("./").split("/")[0]
    fitting = [name for name in task.datasets if DATASETS[name].images == first]
    if len(fitting) > 1:  # a rule's mark decides; without one, it is of a rule that has none
        marks = {name: DATASETS[name].rule.mark for name in fitting}
        conversation = str(record.get("conversations"))
        marked = [name for name, mark in marks.items() if mark and mark.search(conversation)]
        fitting = marked or [name for name, mark in marks.items() if not mark]
    if len(fitting) != 1:
        raise RecordError(
            f"image: {record.get('image')!r} is of none of {', '.join(task.datasets)}"
        )
    return DATASETS[fitting[0]]
