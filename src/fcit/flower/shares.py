"""Writes the clients' shares of a recipe's data as data folders, to try a deployment on one machine."""

import shutil
from pathlib import Path

from fcit.benchmark import datasets
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
    for sample in samples:
        copy = folder / "datasets" / sample.image
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(datasets.image_path(experiment.root, sample, experiment.images), copy)
    dataset = experiment.dataset(name)
    dataset.write(folder, split, samples)
    table = dataset.file(experiment.root, split).with_name("dataset.toml")
    if table.is_file():
        shutil.copyfile(table, dataset.file(folder, split).with_name(table.name))
