"""What a data folder lacks: files, folders of images, images."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from fcit.benchmark import datasets
from fcit.benchmark.datasets import Dataset
from fcit.benchmark.layout import PARTITIONS
from fcit.types import FcitError, Sample, did_you_mean


def missing(
    root: Path, wanted: Sequence[Dataset], images: Sequence[Path] = ()
) -> dict[str, list[str]]:
    """Which files and folders these datasets need and do not have, by dataset; relative to `root`,
    image folders to one of `images` where these are given."""
    absent: dict[str, list[str]] = {}
    for dataset in wanted:
        paths = {split: dataset.file(root, split) for split in ("train", "test")}
        files = [*paths.values(), *map(paths["test"].with_name, dataset.rule.files)]
        lacking = [path.relative_to(root).as_posix() for path in files if not path.is_file()]
        folders = dataset.image_folders(root, images)
        if dataset.images and not any((folder / dataset.images).is_dir() for folder in folders):
            folder = "" if images else f"{folders[0].relative_to(root).as_posix()}/"
            lacking.append(folder + dataset.images)
        if lacking:
            absent[dataset.name] = lacking
    return absent


def require(root: Path, wanted: Sequence[Dataset], images: Sequence[Path] = ()) -> None:
    """Raise an FcitError that names all datasets that are not whole and what they lack, in one line."""
    if absent := missing(root, wanted, images):
        lacks = "; ".join(f"{', '.join(files)} for {name}" for name, files in absent.items())
        where = (
            f" (image folders are looked for in {', '.join(map(str, images))})" if images else ""
        )
        here = [name for name in datasets.present(root) if name not in absent]
        for dataset in wanted:
            if dataset.name not in datasets.DATASETS and not dataset.path(root).is_dir():
                close = did_you_mean(dataset.name, here)
                has = f"it has {', '.join(here) or '(none)'}"
                raise FcitError(f"{root} has no dataset {dataset.name!r}{close or f'; {has}'}")
        raise FcitError(
            f"{root} lacks {lacks}{where}; it has the datasets {', '.join(here) or '(none)'}"
        )


def require_images(samples: Sequence[Sample], paths: Sequence[Path]) -> None:
    """Raise FcitError naming the first sample whose image is missing."""
    for sample, path in zip(samples, paths, strict=True):
        if not path.is_file():
            where = f"{sample.dataset}, sample {sample.id}"
            raise FcitError(
                f"{where}: {path}: no such image{other_case(path)}; fcit data check lists all that are "
                'missing, data.missing = "drop" leaves their samples out'
            )


def require_samples(task: str, shares: Sequence[Sequence[Sample]]) -> None:
    """Raise FcitError naming the first client of a published split whose samples were all left out."""
    if empty := [client for client, share in enumerate(shares) if not share]:
        raise FcitError(
            f'data.missing: "drop" leaves client {empty[0]} without samples of {task}, as all its '
            "images are missing or cannot be read; restore some (fcit data check lists them), or move "
            f"{PARTITIONS} away, so that what is left is split by the seed"
        )


def other_case(path: Path) -> str:
    """Of a path that is missing: `; there is ...` where only its capitals are others."""
    there = next(above for above in path.absolute().parents if above.is_dir())
    for part in path.absolute().relative_to(there).parts:
        names = _by_casefold(there, there.stat().st_mtime_ns)
        if part.casefold() not in names:
            return ""
        there /= names[part.casefold()]
    return f"; there is {there}"


@lru_cache(maxsize=4)
def _by_casefold(folder: Path, changed: int) -> dict[str, str]:
    return {path.name.casefold(): path.name for path in folder.glob("*")}


def told(dropped: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """How many records were left out of each dataset, in words: "OCR-VQA 3 train, 1 test; ..."."""
    counts = {
        name: ", ".join(f"{sum(lost.values())} {part}" for part, lost in parts.items())
        for name, parts in dropped.items()
    }
    return "; ".join(f"{name} {count}" for name, count in counts.items())
