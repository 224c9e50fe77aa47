"""Which images records name, and which file of a repository or an archive is which of them."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fcit.benchmark import datasets, layout, published, records
from fcit.benchmark.datasets import Dataset
from fcit.types import FcitError


class Wanted:
    """The images of some datasets by their paths below a data folder, and how well each one was matched.

    A file belongs to the image with which its path shares the most last parts. exact: all of the image's.
    """

    def __init__(self, exact: bool):
        self.exact = exact
        self.paths: dict[str, dict[str, Path]] = {}
        """By dataset: an image's path as records write it, and where it goes."""
        self.found: dict[Path, int] = {}
        """How many parts of its path the file shares that an image has."""
        self.ends: dict[str, dict[str, str | None]] = {}
        """By dataset: the image that has such last parts; None: several have."""

    def add(self, name: str, image: str, goes: Path) -> None:
        """An image of a dataset."""
        paths, ends = self.paths.setdefault(name, {}), self.ends.setdefault(name, {})
        if image in paths:
            return
        paths[image] = goes
        parts = image.split("/")
        for at in range(len(parts)):
            end = "/".join(parts[at:])
            ends[end] = image if ends.get(end, image) == image else None

    def match(self, parts: Sequence[str], owners: Collection[str]) -> Path | None:
        """Where a file with such a path goes; None: it is no image, or one that was matched as well
        before. owners: the datasets that it can be of; empty: any."""
        best, goes = 0, set[Path]()
        for name in owners or self.ends:
            ends = self.ends.get(name, {})
            for count in range(len(parts), max(best - 1, 0), -1):
                if image := ends.get("/".join(parts[-count:])):
                    if self.exact and count <= image.count("/"):
                        break
                    path = self.paths[name][image]
                    goes = {path} if count > best else goes | {path}
                    best = count
                    break
        if len(goes) != 1 or best <= self.found.get(path := next(iter(goes)), 0):
            return None
        self.found[path] = best
        return path

    def lacking(self, name: str) -> int:
        """How many images of a dataset have no file."""
        return sum(path not in self.found for path in set(self.paths.get(name, {}).values()))


def wanted(root: Path, names: Iterable[str], exact: bool) -> Wanted:
    """The images that the records of a data folder's datasets name. Files that cannot be read are left
    to the check."""
    images = Wanted(exact)
    known: dict[str, Dataset] = {}
    for name in names:
        with suppress(FcitError):
            known[name] = datasets.find(name, root)
    for dataset in known.values():
        for split in ("train", "test"):
            with suppress(FcitError):
                for sample in dataset.parse(root, split):
                    if not isinstance(sample, records.BadRecord):
                        _add(images, root, dataset, sample.image)
    for folder, task in published.folders(root):
        if task is None:
            continue
        with suppress(FcitError):
            tell = published.dataset_teller(root, task)
            for path in published.client_files(folder).values():
                with suppress(FcitError):
                    for sample in datasets.parse_training_file(path, tell):
                        if not isinstance(sample, records.BadRecord) and sample.dataset in known:
                            _add(images, root, known[sample.dataset], sample.image)
    return images


def _add(images: Wanted, root: Path, dataset: Dataset, image: str) -> None:
    start, *others = dataset.image_folders(root)
    if others and image.split("/")[0] in layout.IMAGES:  # the path starts at the data folder
        images.add(dataset.name, image.split("/", 1)[-1], root / image)
        return
    own = start == dataset.path(root)
    images.add(dataset.name, f"{dataset.folder}/{image}" if own else image, start / image)


def owners(parts: Iterable[str], names: Mapping[str, set[str]]) -> set[str]:
    """The datasets that a path names in one of its parts. names: what each dataset and its folders are
    called."""
    return {
        name
        for name, titles in names.items()
        if any(_begins(part, title) for part in parts for title in titles)
    }


def _begins(part: str, title: str) -> bool:
    return bool(re.match(rf"{re.escape(title)}(?![a-z0-9])", part, re.I))
