"""The digits example: its data folder is sound, complete and repeatable, and a federation runs on it."""

from __future__ import annotations

import copy
import io
import runpy
import sys
from collections import Counter
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fcit
from fcit.benchmark import datasets
from fcit.benchmark.check import check
from fcit.files import read_json, read_lines
from fcit.recipe.config import load, validate
from fcit.worker.experiment import Experiment

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
STAGES = ("Digit-Read", "Digit-Parity", "Digit-Size")


@dataclass(frozen=True)
class Done:
    """What the script left."""

    returncode: int
    stderr: str


def make(folder: Path, *words: str) -> Done:
    """The script, called in this process, where warnings are errors."""
    said = io.StringIO()
    script = str(DIGITS / "make.py")
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(said):
        patch.setattr(sys, "argv", [script, str(folder), *words])
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as ended:
            return Done(int(ended.code or 0), said.getvalue())
    return Done(0, said.getvalue())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("digits") / "data"
    done = make(folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_nothing_is_wrong_with_the_folder(root: Path) -> None:
    report = check(root)
    assert report.problems == []
    assert report.counts == {name: {"train": 1438, "test": 359} for name in STAGES}


def test_every_scan_is_used_and_none_is_in_both_splits_of_any_stage(root: Path) -> None:
    shown = {
        split: {one.image for name in STAGES for one in datasets.read(root, name, split)}
        for split in ("train", "test")
    }
    assert (len(shown["train"]), len(shown["test"])) == (1438, 359)
    assert not shown["train"] & shown["test"]
    on_disk = {str(p.relative_to(root / "datasets")) for p in root.rglob("*.png")}
    assert shown["train"] | shown["test"] == on_disk
    assert len(on_disk) == 1797


def test_the_three_answers_about_a_scan_agree(root: Path) -> None:
    found = {
        name: {
            one.image: one.answers[0]
            for split in ("train", "test")
            for one in datasets.read(root, name, split)
        }
        for name in STAGES
    }
    for image, numeral in found["Digit-Read"].items():
        digit = int(numeral)
        assert found["Digit-Parity"][image] == ("even", "odd")[digit % 2]
        assert found["Digit-Size"][image] == ("no", "yes")[digit >= 5]
    counts = Counter(found["Digit-Read"].values())  # as scikit-learn documents them
    assert [counts[numeral] for numeral in "0123456789"] == [
        178,
        182,
        177,
        183,
        181,
        182,
        181,
        179,
        174,
        180,
    ]


def test_stages_share_no_wording_and_each_has_several(root: Path) -> None:
    asked = [{one.prompt for one in datasets.read(root, name, "train")} for name in STAGES]
    assert [len(prompts) for prompts in asked] == [3, 3, 3]
    assert len(set.union(*asked)) == 9


def test_images_are_dark_ink_on_white(root: Path) -> None:
    for path in sorted((root / "datasets" / "digits").iterdir())[::100]:
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((48, 48), "L")
            pixels = np.asarray(image)
        assert np.mean(pixels[:, [0, -1]] > 200) > 0.7  # the sides are paper
        assert pixels.min() < 40


def test_one_seed_gives_the_same_bytes_and_another_seed_another_split(
    root: Path, tmp_path: Path
) -> None:
    assert make(tmp_path / "again").returncode == 0
    assert files(tmp_path / "again") == files(root)
    assert make(tmp_path / "other", "--seed", "1").returncode == 0
    tested = [
        {row["image"] for row in read_json(one / "instructions" / "Digit-Read" / "test.json")}
        for one in (root, tmp_path / "other")
    ]
    assert tested[0] != tested[1]


def test_an_existing_folder_is_refused_in_one_line_and_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kept.txt").write_text("mine")
    done = make(mine)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"make.py: {mine}: exists already; remove it or name another folder"
    ]
    assert files(tmp_path) == {"mine/kept.txt": b"mine"}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = make(tmp_path / "file" / "data")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "cannot be written" in done.stderr


def test_the_recipe_spreads_every_training_scan_over_ten_clients(root: Path) -> None:
    config = load(DIGITS / "digits.toml", [f"data.root={root}"])
    assert config.setting.order == STAGES
    assert Path(load(DIGITS / "digits.toml").data.root) == (DIGITS / "data").resolve()
    experiment = Experiment(config)
    counts = experiment.counts(experiment.setting)
    assert list(counts) == list(STAGES)
    for held in counts.values():
        assert (len(held), sum(held)) == (10, 1438)
        assert min(held) >= config.federation.min_samples


def test_a_short_federation_gives_each_question_its_subspace(
    root: Path, table: dict, tmp_path: Path
) -> None:
    changed = copy.deepcopy(table) | {"data": {"root": str(root), "train": 20, "test": 6}}
    changed["setting"]["order"] = list(STAGES)
    changed["federation"] |= {"clients": 2, "rounds": 1}
    run = fcit.run(validate(changed), tmp_path / "run")
    assert run.results["datasets"] == list(STAGES)
    assert [sum(cell is not None for cell in row) for row in run.results["matrix"]] == [1, 2, 3]
    rounds = read_lines(run.folder / "log.jsonl")
    assert [sum(row["samples"]) for row in rounds] == [20, 20, 20]
    assert len({tuple(set(row["subspaces"])) for row in rounds}) == 3
    for name in STAGES:
        answers = read_lines(run.folder / "predictions" / "3" / f"{name}.jsonl")
        assert len(answers) == 6
        for row in answers:
            right = row["prediction"].strip().lower() in (row["truth"], row["truth"] + ".")
            assert bool(row["score"]) == right
