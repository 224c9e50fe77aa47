"""A recipe's split as one data folder a client, to try a deployment with data that is in one place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fcit.benchmark import datasets
from fcit.files import write_json
from fcit.recipe.config import Config
from fcit.types import Sample
from fcit.watch import Watch
from fcit.worker.experiment import Experiment


def split(config: Config, folders: list[Path], watch: Watch) -> None:
    """Write every client's training samples and their images into its folder, in order; where clients
    score themselves, its test samples too.

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
                _images(folder, samples, experiment)
                _write(folder, name, "train", [_training(sample) for sample in samples])
            for name in experiment.setting.datasets if config.evaluation.where == "clients" else ():
                samples = experiment.test_share(name, client)
                _images(folder, samples, experiment)
                _tests(folder, name, samples)
            step(client + 1)


def _images(folder: Path, samples: list[Sample], experiment: Experiment) -> None:
    for sample in samples:
        copy = folder / "datasets" / sample.image
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(datasets.image_path(experiment.root, sample, experiment.images), copy)


def _write(folder: Path, name: str, part: datasets.Split, records: list[dict[str, Any]]) -> None:
    if records:
        write_json(datasets.record_file(folder, datasets.find(name), part), records)


def _tests(folder: Path, name: str, samples: list[Sample]) -> None:
    row = datasets.find(name)
    key = "answer_bbox" if row.scorer == "box" else "answer"
    records = [
        {"question_id": one.id, "image": one.image, "text": one.prompt, key: one.answers[0]}
        for one in samples
    ]
    _write(folder, name, "test", records)
    if records and row.caption_file:
        notes = [
            {"image_id": number, "caption": caption}
            for number, one in enumerate(samples, 1)
            for caption in one.answers
        ]
        file = datasets.record_file(folder, row, "test").with_name(row.caption_file)
        write_json(file, {"annotations": notes})


def _training(sample: Sample) -> dict[str, Any]:
    said = [("<image>\n" + sample.prompt, sample.answers[0]), *sample.more]
    turns = [
        turn
        for human, gpt in said
        for turn in ({"from": "human", "value": human}, {"from": "gpt", "value": gpt})
    ]
    return {"id": sample.id, "image": sample.image, "conversations": turns}
