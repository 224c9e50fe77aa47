"""Checking a data folder: every kind of mistake is found, at once, and nothing else."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import official
from commandline import call, refused
from fcit import suite as mini
from fcit.benchmark.check import Problem, check
from fcit.benchmark.missing import other_case
from fcit.types import FcitError

FILES = {name: f"instructions/DVQA/{name}.json" for name in ("train", "test")}


@pytest.fixture
def root(tmp_path: Path, small: Path) -> Path:
    shutil.copytree(small, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "mini"
    mini.write(folder, seed=1, train=4, test=3, names=["DVQA", "Flickr30k"])
    return folder


def edit(root: Path, split: str, number: int, **changes: Any) -> None:
    path = root / FILES[split]
    records = json.loads(path.read_text(encoding="utf-8"))
    records[number - 1].update(changes)
    path.write_text(json.dumps(records), encoding="utf-8")


def image(root: Path, split: str, number: int) -> Path:
    return root / "datasets" / f"DVQA/images/{split}_{number:06d}.png"


def test_whole_mini_suite_has_nothing_wrong(suite):
    report = check(suite)
    assert report.problems == []
    assert report.absent == []
    assert set(report.counts) == set(mini.GENERATORS)
    assert all(parts == {"train": 40, "test": 12} for parts in report.counts.values())


def test_only_datasets_that_are_there_are_checked(root):
    report = check(root)
    assert report.problems == []
    assert list(report.counts) == ["DVQA", "Flickr30k"]
    assert len(report.absent) == 10


def test_everything_wrong_is_listed_at_once(root):
    image(root, "train", 1).rename(image(root, "train", 1).with_suffix(".PNG"))
    broken = image(root, "train", 2)
    broken.write_bytes(broken.read_bytes()[:-40])
    image(root, "train", 3).write_text("not an image")
    edit(root, "train", 4, image="../../secret.png")
    edit(root, "test", 1, answer=None)
    edit(root, "test", 3, question_id="DVQA-test-2")
    captions = root / "instructions/Flickr30k-cap/val_coco_type.json"
    captions.write_text("{", encoding="utf-8")
    (root / "instructions/Flickr30k-cap/train_brief_4w.json").unlink()
    report = check(root)
    found = {(problem.file, problem.record): problem.what for problem in report.problems}
    assert len(found) == len(report.problems) == 8
    train, test = FILES["train"], FILES["test"]
    missing = found[train, "record 1 (id DVQA-train-1)"]
    assert missing.endswith(f"is missing; there is {image(root, 'train', 1).with_suffix('.PNG')}")
    shown = image(root, "train", 1).with_suffix(".PNG")
    shown.rename(shown.with_suffix(".Png"))
    assert other_case(image(root, "train", 1)).endswith(
        "; there is " + str(shown.with_suffix(".Png"))
    )
    assert "train_000002.png': cannot be decoded" in found[train, "record 2 (id DVQA-train-2)"]
    assert "cannot be decoded" in found[train, "record 3 (id DVQA-train-3)"]
    assert str(root) not in found[train, "record 3 (id DVQA-train-3)"]
    assert found[train, "record 4"] == "image: '../../secret.png' leaves datasets/"
    assert found[test, "record 1"] == "answer: must be text, not null"
    assert found[test, "record 3 (id DVQA-test-2)"] == "its id is also that of record 2"
    folder = "instructions/Flickr30k-cap"
    assert found[f"{folder}/val_coco_type.json", ""].startswith("not valid JSON")
    assert found[f"{folder}/train_brief_4w.json", ""] == "no such file"
    assert report.counts == {"DVQA": {"train": 3, "test": 2}, "Flickr30k": {"train": 0, "test": 0}}


def test_test_sample_that_is_a_training_sample_is_found(root):
    records = json.loads((root / FILES["train"]).read_text(encoding="utf-8"))
    prompt = records[1]["conversations"][0]["value"].removeprefix("<image>\n")
    # another file, of the same pixels
    with Image.open(image(root, "train", 2)) as picture:
        picture.save(root / "datasets/DVQA/images/copy.bmp")
    edit(root, "test", 2, image="DVQA/images/copy.bmp")
    assert check(root).problems == []  # same image, another prompt
    edit(root, "test", 2, text=prompt)
    assert check(root).problems == [
        Problem(
            FILES["test"],
            "record 2 (id DVQA-test-2)",
            f"is also a training sample: {FILES['train']}, record 2 (id DVQA-train-2)",
        )
    ]


def test_images_behind_a_link_are_checked_like_others(root, tmp_path):
    away = tmp_path / "away.png"
    image(root, "test", 1).rename(away)
    image(root, "test", 1).symlink_to(away)
    assert check(root).problems == []
    away.write_bytes(b"no image")
    (problem,) = check(root).problems
    assert (problem.record, problem.file) == ("record 1 (id DVQA-test-1)", FILES["test"])
    assert "cannot be decoded" in problem.what


def test_pillows_warnings_are_not_errors(root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 40)  # 48 x 48 is over it, under its double
    assert check(root).problems == []
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20 * 20)
    problems = check(root).problems
    assert len(problems) == 14
    assert all("has too many pixels" in problem.what for problem in problems)


def test_a_clients_folder_needs_what_its_turns_ask_for(root: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "two.toml"
    stage = '[[setting.stages]]\nslots = ["{}"]\nclients = [{}]\n'
    stages = [stage.format(*pair) for pair in (("DVQA", "0, 1"), ("IconQA", "1, 2"))]
    federation = "[federation]\nclients = 3\nper_round = 2\nrounds = 1\n"
    recipe.write_text('[setting]\nname = "two"\n' + "".join(stages) + federation)
    (root / FILES["test"]).unlink()  # what only trains needs no test file

    def checked(client: int, *more: str | Path):
        return call("data", "check", root, "--client", str(client), *more)

    assert checked(0, "--recipe", recipe).stdout.endswith("nothing wrong\n")
    refused(checked(1, "--recipe", recipe), "no training samples of IconQA")
    refused(checked(3, "--recipe", recipe), "client 3", "clients 0 to 2")
    refused(checked(1), "--client and --recipe belong together")


def test_folder_without_images_is_one_problem(root):
    shutil.rmtree(root / "datasets")
    assert [problem.file for problem in check(root).problems] == ["datasets"]


def test_images_are_checked_where_another_folder_of_images_is_missing(tmp_path: Path) -> None:
    root = official.write(tmp_path / "data")
    (root / "datasets/OCR-VQA/images/0140620001.jpg").unlink()
    problems = check(root, [root / "datasets", root / "more"]).problems
    found = {problem.file: problem.what for problem in problems}
    assert found["more"].startswith("no such folder")
    assert found["instructions/OCRVQA/train_10w.json"].endswith("is missing")
    assert len(found) == 2


@pytest.mark.parametrize(
    ("folder", "flat"),
    [("instructions/DVQA", False), ("datasets/DVQA", False), ("datasets/DVQA", True)],
)
def test_a_folder_that_this_user_may_not_read_does_not_stop_the_check(
    root, monkeypatch, folder: str, flat: bool
):
    if flat:
        (root / "instructions" / "DVQA").rename(root / "DVQA")
        shutil.rmtree(root / "instructions")
    denied, look = str(root / folder) + os.sep, os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(denied):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    report = check(root)
    assert flat or report.counts["Flickr30k"] == {"train": 4, "test": 3}
    told = {(problem.file.split("/")[-2], problem.what) for problem in report.problems}
    assert len(told) == len(report.problems) == (1 if folder.startswith("instr") else 7)
    assert all(name == "DVQA" and "Permission denied" in what for name, what in told)


def test_folder_without_datasets_is_a_problem(tmp_path):
    with pytest.raises(FcitError, match="this is not a data folder"):
        check(tmp_path)
    (tmp_path / "instructions").mkdir()
    report = check(tmp_path)
    assert [problem.file for problem in report.problems] == ["instructions"]
    assert len(report.absent) == 12


def test_root_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FcitError, match="nowhere: no such folder"):
        check(tmp_path / "nowhere")
