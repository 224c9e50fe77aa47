"""Where the data of a benchmark are (`hub.toml`), and what its record files are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fcit.benchmark.datasets import DATASETS, NEIGHBOURS, listed
from fcit.files import read_toml

TABLES: dict[str, dict[str, Any]] = read_toml(Path(__file__).parents[1] / "hub.toml")


@dataclass(frozen=True)
class Origin:
    """Where a benchmark's data are, or those of any repository that is a data folder."""

    repository: str
    records_in: str
    """The folder of the data folder that records go to."""
    images_in: str
    """The folder that images go to; "": that of their records."""
    images: Mapping[str, str] = field(default_factory=dict[str, str])
    """By dataset, another repository or a page. Empty: the datasets are whatever the repository has."""
    leave: Sequence[str] = ()
    """Patterns of files that are another benchmark's."""
    records: Mapping[str, set[str]] = field(default_factory=dict[str, set[str]])
    """By dataset, the record files as FOLDER/FILE."""
    titles: Mapping[str, set[str]] = field(default_factory=dict[str, set[str]])
    """By dataset, what it and its folders are called."""

    def elsewhere(self, name: str) -> str:
        """The other repository that has a dataset's images, or ""."""
        where = self.images.get(name, "")
        return "" if "://" in where else where

    def page(self, name: str) -> str:
        """Where a person finds a dataset's images."""
        return self.images.get(name, "") or self.repository


def origin(name: str, only: tuple[str, ...] = ()) -> Origin:
    """Where a benchmark's data are, those of a few of its datasets if `only` says so; or a repository."""
    if name not in TABLES:
        return Origin(name, "instructions", "datasets")
    whole = Origin(**TABLES[name])
    images = {key: where for key, where in whole.images.items() if not only or key in only}
    facts = {dataset: _facts(name, dataset) for dataset in whole.images}
    records = {key: facts[key][0] for key in images}
    titles = {key: said for key, (_, said) in facts.items()}
    return replace(whole, images=images, records=records, titles=titles)


def _facts(benchmark: str, name: str) -> tuple[set[str], set[str]]:
    """The record files of a dataset, and what it and its folders are called."""
    if benchmark == "fcit":
        dataset = DATASETS[name]
        folders = [dataset.folder]
        files = [dataset.train_file, dataset.test_file, *dataset.rule.files]
        images = dataset.images
    else:
        table = NEIGHBOURS[name][benchmark]
        folders = [*listed(table.get("folder", ())), name]
        files = ["train.json", "test.json"]
        files += [
            file for key in ("train", "test", "captions") for file in listed(table.get(key, ()))
        ]
        images = table.get("images", name)
    lines = [file.removesuffix(".json") + ".jsonl" for file in files]
    paths = {f"{folder}/{file}" for folder in folders for file in (*files, *lines)}
    return paths, {name, images, *folders} - {""}
