"""The mini suite: twelve seeded miniatures of the benchmark's datasets, in the official layout.

Sample i of a split has its own random stream, so a larger suite extends a smaller one. A hash of
the image decides which split may use it: no test image is a training image of any dataset. A third
of the test prompts is worded as no training prompt is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from fcit.benchmark.datasets import DATASETS, Split
from fcit.files import write_json
from fcit.seeds import numpy_stream
from fcit.suite import (
    aokvqa,
    arxivqa,
    clevr_math,
    dvqa,
    figureqa,
    flickr30k,
    grounding,
    iconqa,
    imagenet_r,
    ocr_vqa,
    super_clevr,
    tabmwp,
)
from fcit.suite.draw import SIZE
from fcit.suite.drawn import Drawn
from fcit.types import FcitError

GENERATORS: dict[str, ModuleType] = {
    module.NAME: module
    for module in (
        imagenet_r,
        arxivqa,
        iconqa,
        clevr_math,
        ocr_vqa,
        flickr30k,
        figureqa,
        super_clevr,
        aokvqa,
        grounding,
        dvqa,
        tabmwp,
    )
}
"""Each dataset's generator by name; its `sample(rng, split)` draws one sample."""

IMAGES: dict[str, tuple[str, str]] = {
    "ImageNet-R": ("ImageNet-R/train/{:06d}.png", "ImageNet-R/test/{:06d}.png"),
    "ArxivQA": ("ArxivQA/images/train_{:06d}.png", "ArxivQA/images/test_{:06d}.png"),
    "IconQA": (
        "IconQA/iconqa_data/iconqa/train/{:06d}.png",
        "IconQA/iconqa_data/iconqa/val/{:06d}.png",
    ),
    "CLEVR-Math": ("CLEVR/images/train/{:06d}.png", "CLEVR/images/test/{:06d}.png"),
    "OCR-VQA": ("OCR-VQA/images/train_{:06d}.png", "OCR-VQA/images/test_{:06d}.png"),
    "Flickr30k": ("Flickr30k/train/{:06d}.png", "Flickr30k/val/{:06d}.png"),
    "FigureQA": ("FigureQA/images/train_{:06d}.png", "FigureQA/images/test_{:06d}.png"),
    "super-CLEVR": ("super-CLEVR/images/train_{:06d}.png", "super-CLEVR/images/test_{:06d}.png"),
    "A-OKVQA": (
        "COCO2014/train2014/COCO_train2014_1{:011d}.png",
        "COCO2014/val2014/COCO_val2014_1{:011d}.png",
    ),
    "Grounding": (
        "COCO2014/train2014/COCO_train2014_2{:011d}.png",
        "COCO2014/val2014/COCO_val2014_2{:011d}.png",
    ),
    "DVQA": ("DVQA/images/train_{:06d}.png", "DVQA/images/test_{:06d}.png"),
    "TabMWP": ("TabMWP/tables/train_{:06d}.png", "TabMWP/tables/test_{:06d}.png"),
}
"""Where a dataset's training and test images go below `datasets/`, by sample number from 1."""

_ATTEMPTS = 200


def write(
    root: Path,
    seed: int = 0,
    train: int = 1000,
    test: int = 200,
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the mini suite to `root`: `train` and `test` samples a dataset, the same for one seed.

    The folder appears whole or not at all. `progress` hears (samples done, samples in all). Raises
    `FcitError` for a root that holds anything, an unknown dataset name or a count below 1.
    """
    wanted = tuple(GENERATORS) if names is None else tuple(dict.fromkeys(names))
    _validate(root, train, test, wanted)
    total, done = len(wanted) * (train + test), 0
    aside = root.with_name(f".{root.name}-{os.getpid()}.unfinished")
    try:
        for name in wanted:
            records: dict[Split, list[tuple[str, Drawn]]] = {"train": [], "test": []}
            counts: dict[Split, int] = {"train": train, "test": test}
            for split, count in counts.items():
                pattern = IMAGES[name][split == "test"]
                (aside / "datasets" / pattern).parent.mkdir(parents=True, exist_ok=True)
                for number, drawn in enumerate(draws(seed, name, split, count), 1):
                    path = pattern.format(number)
                    drawn.image.save(aside / "datasets" / path, format="PNG")
                    records[split].append((path, drawn))
                    done += 1
                    if progress:
                        progress(done, total)
            _write_records(aside / "instructions", name, records)
        if root.exists():
            root.rmdir()  # empty: checked above; a race with another writer fails here
        aside.rename(root)
    except OSError as error:
        raise FcitError(f"{root}: the mini suite cannot be written: {error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def draws(seed: int, name: str, split: Split, count: int) -> Iterator[Drawn]:
    """The first `count` samples of a split: no image and prompt twice, no image of the other split.

    Raises `FcitError` when the dataset's generator has nothing new left to draw.
    """
    seen: set[tuple[bytes, str]] = set()
    for index in range(count):
        for attempt in range(_ATTEMPTS):
            rng = numpy_stream(seed, "mini", name, split, index, attempt)
            drawn: Drawn = GENERATORS[name].sample(rng, split)
            image = hashlib.sha256(drawn.image.tobytes()).digest()
            pair = (image, drawn.prompt)
            if (image[0] % 2 == 1) == (split == "test") and pair not in seen:
                seen.add(pair)
                yield drawn
                break
        else:
            raise FcitError(
                f"mini suite, {name}: no new {split} sample after {index} of {count}; "
                f"ask for fewer (--{split})"
            )


def _validate(root: Path, train: int, test: int, names: Sequence[str]) -> None:
    for option, value in (("train", train), ("test", test)):
        if value < 1:
            raise FcitError(f"mini suite: {option} = {value}; it must be at least 1")
    for name in names:
        if name not in GENERATORS:
            raise FcitError(f"mini suite: no dataset {name!r}; there are {', '.join(GENERATORS)}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FcitError(f"{root}: exists and is not empty; give a new folder for the mini suite")


def _write_records(
    instructions: Path, name: str, records: dict[Split, list[tuple[str, Drawn]]]
) -> None:
    row = DATASETS[name]
    folder = instructions / row.folder
    training = [
        _conversation(f"{name}-train-{number}", path, drawn)
        for number, (path, drawn) in enumerate(records["train"], 1)
    ]
    write_json(folder / row.train_file, training)
    testing: list[dict[str, Any]] = []
    for number, (path, drawn) in enumerate(records["test"], 1):
        record = {"question_id": f"{name}-test-{number}", "image": path, "text": drawn.prompt}
        if row.scorer == "box":
            record |= {"answer_bbox": drawn.answers[0], "size": [SIZE, SIZE]}
        else:
            record["answer"] = drawn.answers[0]
        testing.append(record)
    write_json(folder / row.test_file, testing)
    if row.caption_file:
        write_json(folder / row.caption_file, _references(records["test"]))


def _conversation(record: str, path: str, drawn: Drawn) -> dict[str, Any]:
    """A LLaVA training record; the image placeholder opens its first human turn."""
    turns = [(f"<image>\n{drawn.prompt}", drawn.answers[0]), *drawn.more]
    said = [
        {"from": speaker, "value": value}
        for turn in turns
        for speaker, value in zip(("human", "gpt"), turn, strict=True)
    ]
    return {"id": record, "image": path, "conversations": said}


def _references(records: list[tuple[str, Drawn]]) -> dict[str, Any]:
    """All references in the COCO caption form; image ids count from 1 in file order."""
    images = [{"id": number, "file_name": path} for number, (path, _) in enumerate(records, 1)]
    captions = [
        (number, caption)
        for number, (_, drawn) in enumerate(records, 1)
        for caption in drawn.answers
    ]
    annotations = [
        {"id": index, "image_id": number, "caption": caption}
        for index, (number, caption) in enumerate(captions, 1)
    ]
    return {"images": images, "annotations": annotations}
