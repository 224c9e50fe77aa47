"""Writes the clients' shares of a recipe's data as data folders, to try a deployment on one machine."""

import shutil
from dataclasses import replace
from pathlib import Path

from fcit.benchmark import dataset_file, datasets, layout
from fcit.benchmark.datasets import Split
from fcit.recipe.config import Config
from fcit.types import Sample
from fcit.watch import Watch
from fcit.worker.experiment import Experiment


def split(config: Config, folders: list[Path], watch: Watch) -> None:
    """Write every client's training samples and their images into its folder, in order; where clients
    score themselves, its test samples too.

    A client that trains on its whole folder trains on what it would in one process. Raises FcitError
    where the recipe's data is incomplete.
    """
    experiment = Experiment(config)
    experiment.prepare(watch)
    tasks = dict.fromkeys(
        task for stage in experiment.training_setting.stages for task in stage.tasks
    )
    with watch.bar("clients' data", len(folders)) as step:
        for client, folder in enumerate(folders):
            samples_of: dict[str, list[Sample]] = {}
            for task in tasks:
                share = experiment.shares(task)[client]
                for name in task.datasets:
                    samples_of[name] = [sample for sample in share if sample.dataset == name]
            for name, samples in samples_of.items():
                _write(folder, name, "train", samples, experiment)
            for name in experiment.setting.datasets if config.evaluation.where == "clients" else ():
                samples = experiment.test_share(name, client)
                _write(folder, name, "test", samples, experiment)
            step(client + 1)


def _write(
    folder: Path, name: str, split: Split, samples: list[Sample], experiment: Experiment
) -> None:
    """Write samples and their images into a data folder, and what `dataset.toml` says of the dataset."""
    if not samples:
        return
    dataset = replace(
        datasets.find(name, experiment.root), folder=datasets.find(name, folder).folder
    )
    if not layout.images(experiment.root) and not dataset.image_folder:
        apart = (
            layout.images(folder)[0].relative_to(folder) / name
        )  # images of datasets share names
        dataset = replace(dataset, image_folder=apart.as_posix())
    for sample, image in zip(samples, experiment.data_of(samples).images, strict=True):
        copy = dataset.image_folders(folder)[0] / sample.image
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, copy)
    dataset.write(folder, split, samples)
    if datasets.find(name, folder) != dataset:
        dataset_file.write(dataset.path(folder) / "dataset.toml", dataset)
