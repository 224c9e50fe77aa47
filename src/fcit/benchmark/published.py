"""The published split: one JSON of training records per client, where a data folder has it."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from fcit.benchmark.datasets import DATASETS, read_training_file
from fcit.benchmark.records import RecordError
from fcit.benchmark.settings import GROUPS, TASK_ORDER
from fcit.types import FcitError, Sample, Task


def folder(root: Path, task: Task, beta: float) -> Path | None:
    """Where a task's published client files would be; None where none are published.

    Task numbers are the publishers', whatever order a run takes: a dataset's place in the task
    order, a group's place among the capability groups.
    """
    for kind, names in (
        ("Task-related/seq", TASK_ORDER),
        ("Capability-related/cap", tuple(GROUPS)),
    ):
        if task.name in names:
            number = names.index(task.name) + 1
            return root / "partitioned_data" / kind / f"{float(beta)}" / f"Task{number}"
    return None


def published(root: Path, task: Task, beta: float, clients: int) -> list[list[Sample]] | None:
    """Every client's training samples of a task from the published split; None where absent.

    Files of a capability mix datasets; a record's dataset is told by its image path (and, as
    A-OKVQA and Grounding share COCO, by a box in what is said). Raises FcitError on malformed
    files, and where the files are for another number of clients.
    """
    place = folder(root, task, beta)
    if place is None or not place.is_dir():
        return None
    found = sum(1 for path in place.glob("client_*.json") if path.stem[7:].isdigit())
    paths = [place / f"client_{client}.json" for client in range(clients)]
    lacking = next((path for path in paths if not path.is_file()), None)
    if lacking or found != clients:
        raise FcitError(
            f"{place}: a published split for {found} clients, but federation.clients = {clients}; "
            + (
                f"{lacking.name} is missing"
                if lacking
                else f"set it to {found} or move the split away"
            )
        )
    return [read_training_file(root, path, partial(_dataset, task)) for path in paths]


_BOX = re.compile(r"\[(?:\s*\d*\.?\d+\s*,){3}\s*\d*\.?\d+\s*\]")


def _dataset(task: Task, record: dict[str, Any]) -> str:
    """The dataset of a record among those of its task."""
    first = str(record.get("image", "")).removeprefix("./").split("/")[0]
    fitting = [name for name in task.datasets if DATASETS[name].images == first]
    if len(fitting) > 1:
        boxed = bool(_BOX.search(str(record.get("conversations"))))
        fitting = [name for name in fitting if (DATASETS[name].scorer == "box") == boxed]
    if len(fitting) != 1:
        raise RecordError(
            f"image: {record.get('image')!r} is of none of {', '.join(task.datasets)}"
        )
    return fitting[0]
