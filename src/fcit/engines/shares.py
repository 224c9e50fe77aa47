"""A recipe's split as one data folder a client, to try a deployment with data that is in one place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fcit.benchmark import datasets
from fcit.config import Config
from fcit.experiment import Experiment
from fcit.files import write_json
from fcit.types import Sample
from fcit.watch import Watch


def split(config: Config, folders: list[Path], watch: Watch) -> None:
    """Write every client's training samples and their images into its folder, in order.

    A client that trains on the whole of its folder thus trains on what it would in one process.
    Raises FcitError where the recipe's data are not whole.
    """
    experiment = Experiment(config)
    experiment.prepare(watch)
    tasks = dict.fromkeys(
        task for stage in experiment.training_setting.stages for task in stage.tasks
    )
    with watch.bar("clients' data", len(folders)) as step:
        for client, folder in enumerate(folders):
            held: dict[str, list[Sample]] = {}
            for task in tasks:
                share = experiment.shares(task)[client]
                for name in task.datasets:
                    held[name] = [sample for sample in share if sample.dataset == name]
            for name, samples in held.items():
                _write(folder, name, samples, experiment)
            step(client + 1)


def _write(folder: Path, name: str, samples: list[Sample], experiment: Experiment) -> None:
    if not samples:
        return
    for sample in samples:
        copy = folder / "datasets" / sample.image
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(datasets.image_path(experiment.root, sample, experiment.images), copy)
    file = datasets.record_file(folder, datasets.find(name), "train")
    write_json(file, [_record(sample) for sample in samples])


def _record(sample: Sample) -> dict[str, Any]:
    said = [("<image>\n" + sample.prompt, sample.answers[0]), *sample.more]
    turns = [
        turn
        for human, gpt in said
        for turn in ({"from": "human", "value": human}, {"from": "gpt", "value": gpt})
    ]
    return {"id": sample.id, "image": sample.image, "conversations": turns}
