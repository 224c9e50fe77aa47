"""The mini suite: one seed, one set of bytes; disjoint splits, official layout, fair answers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcit import suite as mini
from fcit.benchmark.datasets import DATASETS, read
from fcit.suite import draw
from fcit.suite import drawn as drawing
from fcit.types import FcitError

TRAIN, TEST = 12, 6


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("suite") / "mini"
    mini.write(root, seed=3, train=TRAIN, test=TEST)
    return root


def digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def records(root: Path, name: str, split: str) -> list[dict[str, Any]]:
    row = DATASETS[name]
    file = row.train_file if split == "train" else row.test_file
    return json.loads((root / "instructions" / row.folder / file).read_text(encoding="utf-8"))


def test_suite_has_the_same_bytes_for_one_seed_and_others_for_another(suite, tmp_path):
    mini.write(tmp_path / "again", seed=3, train=TRAIN, test=TEST)
    mini.write(tmp_path / "other", seed=4, train=TRAIN, test=TEST)
    first, again, other = (
        digests(root) for root in (suite, tmp_path / "again", tmp_path / "other")
    )
    assert first == again
    assert first.keys() == other.keys()
    pictures = [path for path in first if path.endswith(".png")]
    changed = sum(first[path] != other[path] for path in pictures)
    assert changed == len(pictures) == 12 * (TRAIN + TEST)


def test_larger_suite_extends_a_smaller_one(suite, tmp_path):
    mini.write(tmp_path / "more", seed=3, train=2 * TRAIN, test=2 * TEST)
    small, large = digests(suite), digests(tmp_path / "more")
    pictures = [path for path in small if path.endswith(".png")]
    assert all(large[path] == small[path] for path in pictures)
    for name in mini.GENERATORS:
        for split, count in (("train", TRAIN), ("test", TEST)):
            assert records(tmp_path / "more", name, split)[:count] == records(suite, name, split)


def test_a_chosen_dataset_is_the_same_as_in_the_whole_suite(suite, tmp_path):
    heard: list[tuple[int, int]] = []
    mini.write(
        tmp_path / "one",
        seed=3,
        train=TRAIN,
        test=TEST,
        names=["DVQA"],
        progress=lambda *at: heard.append(at),
    )
    assert digests(tmp_path / "one").items() <= digests(suite).items()
    assert [path.name for path in (tmp_path / "one" / "instructions").iterdir()] == ["DVQA"]
    assert heard == [(done, TRAIN + TEST) for done in range(1, TRAIN + TEST + 1)]


@pytest.mark.parametrize("name", mini.GENERATORS)
def test_records_have_the_official_form_and_their_images_decode(suite, name):
    ids: set[str] = set()
    for record in records(suite, name, "train"):
        assert record.keys() == {"id", "image", "conversations"}
        turns = record["conversations"]
        speakers = [turn["from"] for turn in turns]
        assert speakers == ["human", "gpt"] * (len(turns) // 2)
        assert turns[0]["value"].startswith("<image>\n")
        assert sum(turn["value"].count("<image>") for turn in turns) == 1
        ids.add(record["id"])
        check_image(suite, record["image"])
    box = DATASETS[name].rule.field == "answer_bbox"
    answer = {"answer_bbox", "size"} if box else {"answer"}
    for record in records(suite, name, "test"):
        assert record.keys() == {"question_id", "image", "text"} | answer
        assert "<image>" not in record["text"]
        ids.add(record["question_id"])
        check_image(suite, record["image"])
    assert len(ids) == TRAIN + TEST


def check_image(root: Path, path: str) -> None:
    with Image.open(root / "datasets" / path) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (draw.SIZE, draw.SIZE))


def test_no_image_is_in_both_splits_and_no_image_and_prompt_repeat():
    splits: dict[str, set[bytes]] = {"train": set(), "test": set()}
    for name in mini.GENERATORS:
        for split, count in (("train", 150), ("test", 60)):
            pairs = [(one.image.tobytes(), one.prompt) for one in mini.draws(0, name, split, count)]
            assert len(set(pairs)) == count
            splits[split] |= {image for image, _ in pairs}
    assert not splits["train"] & splits["test"]


def test_boxes_are_ordered_and_cover_something_drawn_there(suite):
    for record in records(suite, "Grounding", "test"):
        assert record["size"] == [draw.SIZE, draw.SIZE]
        text = record["answer_bbox"]
        assert text.startswith("[") and text.endswith("]")
        left, top, right, bottom = (float(part) for part in text[1:-1].split(","))
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        with Image.open(suite / "datasets" / record["image"]) as image:
            pixels = np.asarray(image).astype(int)
        x1, y1, x2, y2 = (round(value * draw.SIZE) for value in (left, top, right, bottom))
        # The ground has one colour: the box is tight when each of its edges leaves it.
        drawn = (pixels != ground_of(pixels)).any(axis=2)
        inside = drawn[y1:y2, x1:x2]
        assert inside[0].any() and inside[-1].any()
        assert inside[:, 0].any() and inside[:, -1].any()


def ground_of(pixels: np.ndarray) -> np.ndarray:
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return colours[counts.argmax()]


def test_some_grounding_conversations_have_two_turns():
    turns = Counter(len(sample.more) for sample in mini.draws(0, "Grounding", "train", 100))
    assert set(turns) == {0, 1}
    assert 20 <= turns[1] <= 60


def test_captions_have_five_references_numbered_in_file_order(suite):
    row = DATASETS["Flickr30k"]
    text = (suite / "instructions" / row.folder / row.rule.files[0]).read_text(encoding="utf-8")
    coco = json.loads(text)
    test = records(suite, "Flickr30k", "test")
    assert [image["id"] for image in coco["images"]] == list(range(1, TEST + 1))
    assert [image["file_name"] for image in coco["images"]] == [row["image"] for row in test]
    assert len({row["id"] for row in coco["annotations"]}) == 5 * TEST
    for number, record in enumerate(test, 1):
        mine = [row["caption"] for row in coco["annotations"] if row["image_id"] == number]
        assert len(set(mine)) == 5
        assert record["answer"] in mine
        shared = set.intersection(*(set(one.lower().strip(".").split()) for one in mine))
        assert len(shared) >= 3


def test_root_that_holds_something_is_refused_and_left_alone(tmp_path):
    root = tmp_path / "mine"
    root.mkdir()
    (root / "thesis.txt").write_text("years of work")
    with pytest.raises(FcitError, match=r"mine.*not empty"):
        mini.write(root, train=1, test=1)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.txt"]
    with pytest.raises(FcitError, match="not empty"):
        mini.write(root / "thesis.txt", train=1, test=1)


def test_empty_folder_is_filled(tmp_path):
    root = tmp_path / "deep" / "empty"
    root.mkdir(parents=True)
    mini.write(root, train=1, test=1, names=["TabMWP"])
    assert {path.name for path in root.iterdir()} == {"datasets", "instructions"}


def test_an_unknown_dataset_is_named(tmp_path):
    with pytest.raises(FcitError, match="'MNIST'"):
        mini.write(tmp_path / "new", train=1, test=1, names=["MNIST"])
    assert not list(tmp_path.iterdir())


def test_interrupt_leaves_nothing_behind(tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mini.write(tmp_path / "new", train=5, test=5, progress=stop)
    assert not list(tmp_path.iterdir())


def test_exhausted_generator_says_which_dataset_and_how_far(monkeypatch):
    class Blank:
        @staticmethod
        def sample(rng: np.random.Generator, split: str) -> drawing.Drawn:
            shade = int(rng.integers(4))
            return drawing.Drawn(draw.canvas((shade, 0, 0)), "shade?", (str(shade),))

    monkeypatch.setitem(mini.GENERATORS, "ImageNet-R", Blank)
    with pytest.raises(FcitError, match=r"ImageNet-R: no new (train|test) sample"):
        for split in ("train", "test"):
            list(mini.draws(0, "ImageNet-R", split, 5))


@pytest.mark.parametrize("name", mini.GENERATORS)
def test_the_official_loader_reads_what_was_drawn(suite, name):
    for split, count in (("train", TRAIN), ("test", TEST)):
        samples = read(suite, name, split)
        made = list(mini.draws(3, name, split, count))
        assert [sample.prompt for sample in samples] == [sample.prompt for sample in made]
        assert [sample.answers[0] for sample in samples] == [sample.answers[0] for sample in made]
        if split == "train":
            assert [sample.more for sample in samples] == [sample.more for sample in made]
