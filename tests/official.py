"""A small data folder in the official layout, made by hand, with what is odd about each dataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from fcit.benchmark.datasets import DATASETS
from fcit.watch import Silent

WORD = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
CAPTION = "Generate a brief caption for the image."

IMAGES = {
    "ArxivQA": ("ArxivQA/images/1501.{:05d}_1.jpg",) * 2,
    "ImageNet-R": ("./ImageNet-R/train/n01443537/art_{}.jpg", "./ImageNet-R/test/n0144/art_{}.jpg"),
    "IconQA": (
        "IconQA/iconqa_data/iconqa/train/choose_txt/{}/image.png",
        "IconQA/iconqa_data/iconqa/val/choose_txt/{}/image.png",
    ),
    "CLEVR-Math": (
        "CLEVR/images/train/CLEVR_train_{:06d}.png",
        "CLEVR/images/test/CLEVR_test_{:06d}.png",
    ),
    "super-CLEVR": ("super-CLEVR/images/superCLEVR_new_{:06d}.png",) * 2,
    "OCR-VQA": ("OCR-VQA/images/014062{:04d}.jpg", "OCR-VQA/images/014062{:04d}.gif"),
    "TabMWP": ("TabMWP/tables/{}.png",) * 2,
    "A-OKVQA": (
        "COCO2014/train2014/COCO_train2014_{:012d}.jpg",
        "COCO2014/val2014/COCO_val2014_{:012d}.jpg",
    ),
    "FigureQA": ("FigureQA/images/train1/{}.png", "FigureQA/images/validation1/{}.png"),
    "DVQA": ("DVQA/images/bar_train_{:08d}.png", "DVQA/images/bar_val_easy_{:08d}.png"),
    "Flickr30k": ("Flickr30k/train/{}.jpg", "Flickr30k/val/{}.jpg"),
    "Grounding": (  # COCO's training images for both, those of A-OKVQA among them
        "COCO2014/train2014/COCO_train2014_{:012d}.jpg",
        "COCO2014/train2014/COCO_train2014_{:012d}.jpg",
    ),
}
"""Paths of training and test images by number; folders that both splits share are so officially."""

KINDS = {
    "ImageNet-R": ("RGB", "PNG"),  # PNG files that are called .jpg
    "IconQA": ("RGBA", "PNG"),
    "CLEVR-Math": ("RGBA", "PNG"),
    "TabMWP": ("LA", "PNG"),
    "Flickr30k": ("L", "JPEG"),
    "ArxivQA": ("CMYK", "JPEG"),
    "FigureQA": ("1", "PNG"),
}
"""Modes and formats of images that are not plain RGB files of what their name ends in."""

TRAIN: dict[str, list[tuple[str, ...]]] = {
    "ArxivQA": [
        (f"<image>\nWhat rises?\nA) x\nB) y\n{LETTER}", "A"),
        (f"<image>\nWhat falls?\nA. x\nB. y\n{LETTER}", "B"),
    ],
    "ImageNet-R": [
        (f"<image>\nWhat is the object?\n{WORD}", "goldfish"),
        (f"What is the object?\n{WORD}\n<image>", "great white shark"),
    ],
    "IconQA": [
        (f"<image>\nHow many?\n{WORD}", "3"),
        (f"<image>\nWhich?\nChoices: a, b\n{WORD}", "a"),
    ],
    "CLEVR-Math": [
        (f"<image>\nSubtract all cubes. How many?\n{WORD}", "4"),
        (f"<image>\nAdd 2 balls. How many?\n{WORD}", "0"),
    ],
    "super-CLEVR": [
        (f"<image>\nIs there a bus?\n{WORD}", "True"),
        (f"<image>\nHow many?\n{WORD}", "2"),
    ],
    "OCR-VQA": [
        ("<image>\nWho wrote this book?\n" + WORD, "J. Doe", "Is it a novel?\n" + WORD, "No"),
        (f"<image>\nWhat is the title?\n{WORD}", "L'été & après"),
    ],
    "TabMWP": [(f"<image>\nHow much?\n{WORD}", "1,250"), (f"<image>\nWhat part?\n{WORD}", "5/6")],
    "A-OKVQA": [
        (f"<image>\nWhy is it wet?\n{WORD}", "rain"),
        (f"<image>\nWhere?\n{WORD}", "beach"),
    ],
    "FigureQA": [
        (f"<image>\nIs red least?\n{WORD}", "yes"),
        (f"<image>\nIs blue most?\n{WORD}", "no"),
    ],
    "DVQA": [(f"<image>\nHow many bars?\n{WORD}", "5"), (f"<image>\nThe label?\n{WORD}", "drama")],
    "Flickr30k": [
        (f"<image>\n{CAPTION}", "A man in a blue shirt ."),
        (f"<image>\n{CAPTION}", "Two dogs ."),
    ],
    "Grounding": [
        (
            "<image>\nWhere is the cup?",
            "[0.1,0.25,0.5,0.625]",
            "And the mug?",
            "[0.43,0.0,0.9,0.66]",
        ),
        ("<image>\nWhat is in [0.10, 0.20, 0.30, 0.40]?", "a spoon on the left"),
    ],
}
"""What is said in the training records: one or more pairs of turns."""

TEST: dict[str, list[tuple[str, Any]]] = {
    "ArxivQA": [
        (f"What is largest?\nA) x\nB) y\n{LETTER}", "B"),
        (f"Which?\nA) a\nB) b\n{LETTER}", "A"),
    ],
    "ImageNet-R": [(f"What is the object?\n{WORD}", "goldfish"), (f"What is it?\n{WORD}", "hen")],
    "IconQA": [(f"How many stars?\n{WORD}", "3"), (f"Which one?\n{WORD}", "b")],
    "CLEVR-Math": [(f"Subtract 1. How many?\n{WORD}", 4), (f"Add 1. How many?\n{WORD}", 0)],
    "super-CLEVR": [(f"Is there a jet?\n{WORD}", "False"), (f"How many jets?\n{WORD}", "2")],
    "OCR-VQA": [(f"Who wrote it?\n{WORD}", "L. Été"), (f"What kind?\n{WORD}", "Travel")],
    "TabMWP": [(f"How much more?\n{WORD}", "1,250"), (f"The rest?\n{WORD}", 7.5)],
    "A-OKVQA": [(f"Why wet?\n{WORD}", "rain"), (f"Which place?\n{WORD}", "park")],
    "FigureQA": [(f"Is green least?\n{WORD}", "yes"), (f"Is green most?\n{WORD}", "no")],
    "DVQA": [(f"How many groups?\n{WORD}", 3), (f"Which label?\n{WORD}", "drama")],
    "Flickr30k": [(CAPTION, None), (CAPTION, None)],
    "Grounding": [
        ("Where is the pan?", "[0.0,0.0,1.0,1.0]"),
        ("Where is it?", "[0.25,0.1,0.75,0.625]"),
    ],
}
"""The questions of the test records and their answers; captions have a file of their own."""

REFERENCES = (
    [f"A dog runs over grass number {at} ." for at in range(5)],
    [f"Two children sit on a bench number {at} ." for at in range(5)],
)
"""Five captions of each of the two test images of Flickr30k."""


def write(root: Path) -> Path:
    """Write the folder: the twelve datasets, and the published split of two tasks for two clients."""
    taught: dict[str, list[dict[str, Any]]] = {}
    for place, name in enumerate(DATASETS):
        row, folder = DATASETS[name], root / "instructions" / DATASETS[name].folder
        taught[name] = [_taught(name, at, turns) for at, turns in enumerate(TRAIN[name])]
        asked = [_asked(name, at, *question) for at, question in enumerate(TEST[name])]
        for at, record in enumerate((*taught[name], *asked)):
            _draw(root / "datasets" / record["image"], name, 16 * place + at)
        _json(folder / row.train_file, taught[name])
        _json(folder / row.test_file, asked)
    notes = [
        {"id": 10 * image + at, "image_id": image, "caption": caption}
        for at in range(5)  # officially not grouped by image either
        for image, caption in ((number, REFERENCES[number - 1][at]) for number in (1, 2))
    ]
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)]
    flickr = root / "instructions" / "Flickr30k-cap"
    _json(flickr / "val_coco_type.json", {"images": images, "annotations": notes})
    split = root / "partitioned_data"
    for client in range(2):
        name = f"client_{client}.json"
        _json(split / "Task-related/seq/1.0/Task1" / name, [taught["ImageNet-R"][client]])
        general = [taught[one][client] for one in ("A-OKVQA", "IconQA", "Grounding", "ImageNet-R")]
        _json(split / "Capability-related/cap/0.5/Task1" / name, general)
    return root


def _taught(name: str, at: int, said: tuple[str, ...]) -> dict[str, Any]:
    speakers = ("human", "gpt") * (len(said) // 2)
    turns = [{"from": who, "value": what} for who, what in zip(speakers, said, strict=True)]
    record = {"image": IMAGES[name][0].format(at + 1), "conversations": turns}
    if name == "ArxivQA":  # some files have no ids, some whole numbers
        return record
    return {"id": at if name == "OCR-VQA" else f"{name}-{at}"} | record


def _asked(name: str, at: int, text: str, answer: Any) -> dict[str, Any]:
    number = at + 1 if name == "A-OKVQA" else at + 11
    record = {"question_id": at, "image": IMAGES[name][1].format(number), "text": text}
    if name == "Grounding":
        return record | {"answer_bbox": answer, "size": [640, 480]}
    return record if answer is None else record | {"answer": answer}


def _draw(path: Path, name: str, colour: int) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    mode, form = KINDS.get(name, ("RGB", {".jpg": "JPEG", ".gif": "GIF"}.get(path.suffix, "PNG")))
    picture = Image.new("RGB", (6, 4), (colour, 255 - colour, 90))
    picture.putpixel((colour % 6, colour % 4), (255, 255, 255))
    picture.convert(mode).save(path, format=form)


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4), encoding="utf-8")


class Bars(Silent):
    """Remembers of every bar how far it came, and its total."""

    def __init__(self) -> None:
        self.ended: dict[str, tuple[float, int]] = {}

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[float], None]]:
        yield lambda done: self.ended.update({label: (done, total)})
