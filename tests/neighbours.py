"""Small data folders as UCIT and MLLM-DCL publish theirs, with what is odd about each dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

UCIT = ["ImageNet-R", "ArxivQA", "VizWiz", "IconQA", "CLEVR-Math", "Flickr30k"]
MLLM_DCL = ["RS", "Med", "AD", "Sci", "Fin"]
WORD = "Answer the question using a single word or phrase."


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (shade, 255 - shade, 90)).save(path, "JPEG")


def taught(image: Any, at: int, answer: str, **further: Any) -> dict[str, Any]:
    turns = [("human", f"<image>\nWhat is number {at}?\n{WORD}"), ("gpt", answer)]
    record = {
        "image": image,
        "conversations": [{"from": who, "value": said} for who, said in turns],
    }
    return further | record


def asked(image: Any, at: int, **further: Any) -> dict[str, Any]:
    return {"question_id": at, "image": image, "text": f"Which is {at}?\n{WORD}"} | further


def put(path: Path, rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.suffix == ".jsonl"
    text = "\n".join(map(json.dumps, rows)) + "\n" if lines else json.dumps(rows, indent=1)
    path.write_text(text, encoding="utf-8")


FILES = {
    "ImageNet-R": ("ImageNet-R", "train.json", "test_3000.json", "ImageNet-R/train/n01/art_{}.jpg"),
    "ArxivQA": ("ArxivQA", "train_4w.json", "test_3000.json", "ArxivQA/images/0704.{}_0.jpg"),
    "VizWiz": ("VizWiz-caption", "train.json", "test_3000.json", "VizWiz/train/VizWiz_{}.jpg"),
    "IconQA": ("IconQA", "train.jsonl", "test.json", "IconQA/iconqa_data/iconqa/{}/image.png"),
    "CLEVR-Math": ("CLEVR-Math", "train_4w.json", "test_3000.json", "datasets/CLEVR/images/{}.png"),
    "Flickr30k": ("Flickr30k", "train_brief_4w.json", "test_3000.json", "./Flickr30k/train/{}.jpg"),
}
"""Of each of UCIT's datasets its folder, its files, and its image paths: CLEVR's begin with datasets/."""


def ucit(root: Path) -> Path:
    """UCIT/datasets and one folder a dataset, with the names that the hub and MCITlib have."""
    for place, (name, (folder, train, test, image)) in enumerate(FILES.items()):
        paths = [image.format(at) for at in range(6)]
        for at, path in enumerate(paths):
            picture(root / "datasets" / path.removeprefix("datasets/"), 40 * place + at)
        one = (lambda path: [path]) if name == "CLEVR-Math" else str
        key = "images" if name == "CLEVR-Math" else "image"
        rows = [taught(one(path), at, "fern") for at, path in enumerate(paths[:4])]
        questions = [asked(one(path), at, answer="moss") for at, path in enumerate(paths[4:])]
        if name in ("VizWiz", "Flickr30k"):
            for question in questions:
                del question["answer"]
            notes = [{"image_id": 1 + at % 2, "caption": f"A fern {at} ."} for at in range(10)]
            put(root / folder / "val_coco_type_3000.json", {"images": [], "annotations": notes})
        for row in (*rows, *questions) if key == "images" else ():
            row["images"] = row.pop("image")
        put(root / folder / train, rows)
        put(root / folder / test, questions)
        put(root / folder / "replay.json", rows[:1])  # of other methods; nobody's here
    put(
        root / "ImageNet-R" / "test.json", [asked("ImageNet-R/none.jpg", 0, answer="x")]
    )  # not read
    return root


def mllm_dcl(root: Path) -> Path:
    """RS, Med, AD, Sci and Fin, whose image paths start at each one's folder and repeat."""
    for place, name in enumerate(MLLM_DCL):
        for at in range(6):
            picture(root / name / "images" / f"{at}.jpg", 40 * place + at)
        rows = [taught(f"images/{at}.jpg", at, "yes", id=f"{name}-{at}") for at in range(4)]
        questions = [asked(f"images/{at}.jpg", at, answer="Yes") for at in (4, 5)]
        put(root / name / "train.json", rows)
        put(root / name / "test.json", questions)
    put(root / "task5Router_train20.json", [])
    picture(root / "num5sample_images20" / "0.jpg", 3)
    return root
