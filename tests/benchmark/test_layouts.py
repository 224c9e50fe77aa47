"""Data folders as people have them: FCIT's in the singular, UCIT's, MLLM-DCL's, one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import neighbours
import official
from fcit.benchmark import datasets, layout, predictions, stats, tabular
from fcit.benchmark.check import check
from fcit.benchmark.dataset_file import write
from fcit.benchmark.missing import missing
from fcit.benchmark.published import published
from fcit.benchmark.rules import title
from fcit.benchmark.rules.caption import Caption
from fcit.benchmark.rules.contains import Contains
from fcit.benchmark.rules.contains_anywhere import ContainsAnywhere
from fcit.benchmark.settings import GROUPS
from fcit.types import FcitError, Task
from neighbours import MLLM_DCL, UCIT, WORD, asked, picture, put, taught


@pytest.fixture(scope="module")
def ucit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return neighbours.ucit(tmp_path_factory.mktemp("layouts") / "UCIT")


@pytest.fixture(scope="module")
def dcl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return neighbours.mllm_dcl(tmp_path_factory.mktemp("layouts") / "Domain_data")


def test_the_folders_of_the_official_layout_may_be_singular(tmp_path: Path) -> None:
    root = official.write(tmp_path / "data")
    before = {name: datasets.read(root, name, "test") for name in datasets.present(root)}
    (root / "instructions").rename(root / "instruction")
    (root / "datasets").rename(root / "dataset")
    assert {name: datasets.read(root, name, "test") for name in datasets.present(root)} == before
    (root / "instruction/__MACOSX/DVQA").mkdir(parents=True)  # of an archive made on a Mac
    assert check(root).problems == []
    assert published(root, Task("General", GROUPS["General"]), 0.5, 2) is not None
    (root / "dataset" / "DVQA").rename(root / "dataset" / "gone")
    lacks = missing(root, [datasets.find("DVQA", root)])
    assert lacks == {"DVQA": ["dataset/DVQA"]}
    (root / "instructions").mkdir()
    with pytest.raises(FcitError, match="has instructions/ and instruction/; keep one"):
        datasets.present(root)


def test_ucits_folder_is_read_as_it_is(ucit: Path) -> None:
    assert sorted(datasets.present(ucit)) == sorted(UCIT)
    report = check(ucit)
    assert report.problems == []
    assert report.counts == {name: {"train": 4, "test": 2} for name in report.counts}
    assert report.rules["VizWiz"] == report.rules["Flickr30k"] == "caption"
    assert report.rules["ImageNet-R"] == "exact"
    assert missing(ucit, [datasets.find(name, ucit) for name in UCIT]) == {}
    (first, _) = datasets.read(ucit, "VizWiz", "test")
    assert first.answers == tuple(f"A fern {at} ." for at in (0, 2, 4, 6, 8))
    for name in UCIT:
        for sample in datasets.read(ucit, name, "train"):
            assert datasets.image_path(ucit, sample).is_file()
    assert len(stats.collect(ucit, "strict")) == 6


def test_mllm_dcls_images_start_at_each_datasets_folder(dcl: Path) -> None:
    assert sorted(datasets.present(dcl)) == sorted(MLLM_DCL)
    report = check(dcl)
    assert report.problems == []
    rules = {"RS": "contains", "Med": "contains_anywhere", "AD": "contains"}
    assert report.rules == rules | {"Sci": "exact", "Fin": "exact"}
    for name in MLLM_DCL:
        (sample, *_) = datasets.read(dcl, name, "train")
        assert datasets.image_path(dcl, sample) == dcl / name / "images" / "0.jpg"


def test_what_is_known_of_a_benchmark_holds_in_its_own_folders_alone(tmp_path: Path) -> None:
    for name in ("RS", "VizWiz"):
        folder = tmp_path / "instructions" / name
        put(folder / "test.json", [asked("a.jpg", 0, answer="yes")])
        assert (
            title(datasets.find(name, tmp_path).rule) == title(datasets.find(name).rule) == "exact"
        )
    (tmp_path / "instructions/RS/dataset.toml").write_text('benchmark = "mllm-dcl"')
    assert datasets.find("RS", tmp_path).rule == Contains()
    (tmp_path / "instructions/RS/dataset.toml").write_text('benchmark = "mllm-dcl"\nrule = "exact"')
    assert title(datasets.find("RS", tmp_path).rule) == "exact", "it goes before the benchmark's"
    (tmp_path / "instructions/RS/dataset.toml").write_text('benchmark = "ucit"')
    with pytest.raises(FcitError, match=r"dataset\.toml: benchmark: ucit has no dataset RS"):
        datasets.find("RS", tmp_path)
    put(tmp_path / "instructions/VizWiz/test_3000.json", [asked("a.jpg", 0)])
    assert datasets.find("VizWiz", tmp_path).rule == Caption("val_coco_type_3000.json")


def test_a_benchmark_of_ones_own_needs_no_code(tmp_path: Path) -> None:
    root = tmp_path / "Bench"
    for name in ("Leaves", "Roots"):
        put(root / name / "train.json", [taught(f"{name}/{at}.jpg", at, "fern") for at in range(3)])
        put(
            root / name / "test.jsonl",
            [asked(f"{name}/{at}.jpg", at, answer="fern") for at in (3, 4)],
        )
        for at in range(5):
            picture(root / "pictures" / name / f"{at}.jpg", at)
        (root / name / "dataset.toml").write_text(
            'image_folder = "pictures"\nrule = "contains"\nformat_line = "Name the plant."\n'
        )
    assert datasets.present(root) == ["Leaves", "Roots"]
    assert check(root).problems == []
    for split in ("train", "test"):
        for sample in datasets.read(root, "Roots", split):
            assert sample.prompt.endswith(f"{WORD}\nName the plant.")
    with pytest.raises(FcitError, match=f"{tmp_path}: this is not a data folder.*mean {root}"):
        layout.require_folder(tmp_path)
    copy = tmp_path / "copy.toml"
    write(copy, datasets.find("Roots", root))
    copy.replace(root / "Roots" / "dataset.toml")
    assert datasets.find("Roots", root).format_line == "Name the plant."


def test_the_format_line_is_appended_once_to_every_turn(tmp_path: Path) -> None:
    folder = tmp_path / "instructions" / "Mine"
    said = ["Which?", "fern", "And this?\nOne word.", "moss", "This one? One word.", "fern"]
    turns = [{"from": ("human", "gpt")[at % 2], "value": value} for at, value in enumerate(said)]
    put(folder / "train.json", [{"image": "a.jpg", "conversations": turns}])
    (folder / "dataset.toml").write_text('format_line = " One word. "')
    (sample,) = datasets.read(tmp_path, "Mine", "train")
    assert sample.prompt == "Which?\nOne word."
    assert sample.more == (("And this?\nOne word.", "moss"), ("This one? One word.", "fern"))
    (folder / "dataset.toml").write_text('format_line = "One\\nword."')
    with pytest.raises(FcitError, match="format_line: must be one line of text"):
        datasets.find("Mine", tmp_path)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"images": ["a.jpg"]}, ""),
        ({"image": ["a.jpg"]}, ""),
        ({"images": ["a.jpg", "b.jpg"]}, "images: names 2 images; a record has one"),
        ({"images": []}, "images: names 0 images"),
        ({"images": "a.jpg"}, ""),
        ({"images": [7]}, "image: must be a path"),
    ],
)
def test_a_record_may_list_its_one_image(tmp_path: Path, record: dict, said: str) -> None:
    question = asked("", 0, answer="x") | record
    if "images" in record:
        del question["image"]
    put(tmp_path / "instructions" / "Mine" / "test.json", [question])
    if said:
        with pytest.raises(FcitError, match=f"record 1: {said}"):
            datasets.read(tmp_path, "Mine", "test")
    else:
        assert datasets.read(tmp_path, "Mine", "test")[0].image == "a.jpg"


def test_json_lines_are_read_by_suffix_or_content(tmp_path: Path) -> None:
    folder, rows = (
        tmp_path / "instructions" / "Mine",
        [asked("a.jpg", at, answer="x") for at in (0, 1)],
    )
    lines = "".join(json.dumps(row) + "\n\n" for row in rows)
    put(folder / "test.json", rows)
    samples = datasets.read(tmp_path, "Mine", "test")
    (folder / "test.json").write_text(lines)
    assert datasets.read(tmp_path, "Mine", "test") == samples
    (folder / "test.json").rename(folder / "test.jsonl")
    assert datasets.read(tmp_path, "Mine", "test") == samples
    assert missing(tmp_path, [datasets.find("Mine", tmp_path)]) == {
        "Mine": ["instructions/Mine/train.json"]
    }
    (folder / "test.jsonl").write_text(lines + "{")
    with pytest.raises(FcitError, match=r"test\.jsonl, line 5: not valid JSON"):
        datasets.read(tmp_path, "Mine", "test")
    (folder / "test.jsonl").write_text("\n")
    with pytest.raises(FcitError, match="holds no records"):
        datasets.read(tmp_path, "Mine", "test")


@pytest.mark.parametrize(
    ("answer", "truth", "strict", "reference", "anywhere"),
    [
        ("Yes.", "yes", True, True, True),
        ("There are 3 cars", "3", True, True, True),
        ("about 3.5 m", "3", False, True, True),
        ("in 13 lots", "3", False, True, True),
        ("13", "3", False, True, True),
        ("abnormal tissue", "no", False, False, True),
        ("a bus, going ahead", "Going ahead.", True, False, False),
        ("Unanswerable, perhaps yes", "yes", True, False, False),
        ("", "yes", False, False, False),
        ("whatever", ".", False, True, False),
    ],
)
def test_a_truth_contained_in_the_answer_is_right(
    answer: str, truth: str, strict: bool, reference: bool, anywhere: bool
) -> None:
    assert Contains().right(answer, truth, "strict") is strict
    assert ContainsAnywhere().right(answer, truth, "strict") is strict
    assert Contains().right(answer, truth, "reference") is reference
    assert ContainsAnywhere().right(answer, truth, "reference") is anywhere


@pytest.mark.parametrize(
    ("truth", "right", "wrong"),
    [
        (
            "3",
            ["3", "is 3.", "(3)", "2-3", "B-3", "3-4", "well...3", "of--3", "3/a", "p.3", "5 - 3"],
            [
                "-3",
                "\u22123",
                "is -3",
                "(-3)",
                ".3",
                "is .3",
                "-.3",
                "0.3",
                "3.5",
                "1/3",
                "3/4",
                "13",
            ],
        ),
        ("3 cats", ["3 cats", "3 cats/4"], ["-3 cats", "1/3 cats"]),
        ("1/3", ["1/3", "is 1/3."], ["-1/3", "1/3/5", "11/3", "1/30"]),
        ("-3", ["-3", "is -3"], ["3", "-3/4", "-3.5"]),
        (".5", [".5", "is .5"], ["0.5", ".55"]),
        ("yes", ["-yes", ".yes", "yes/no", "no/yes"], ["yesterday"]),
    ],
)
def test_a_number_is_right_as_a_whole_number_only(
    truth: str, right: list[str], wrong: list[str]
) -> None:
    found = [text for text in (*right, *wrong) if Contains().right(text, truth, "strict")]
    assert found == right


def test_predictions_are_scored_by_the_rule_of_the_test_files_folder(
    dcl: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said.jsonl"
    put(said, [{"question_id": at, "text": "I say yes"} for at in (4, 5)])
    found = predictions.score("RS", dcl / "RS" / "test.json", said, "strict")
    assert (found.score, found.rule) == (100, "contains")
    assert predictions.score("Fin", dcl / "Fin" / "test.json", said, "strict").score == 0


def test_a_table_is_imported_into_the_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "instruction").mkdir()
    (tmp_path / "dataset").mkdir()
    for at in range(2):
        picture(tmp_path / "photos" / f"{at}.jpg", 100 * at)
    rows = [tabular.TableRow(at, f"{at}.jpg", "Which?", "fern") for at in range(2)]
    tabular.write(tmp_path, "My-Plants", rows, tmp_path / "photos")
    assert len(list((tmp_path / "dataset" / "My-Plants").iterdir())) == 2
    assert check(tmp_path).problems == []
    beside = neighbours.mllm_dcl(tmp_path / "beside")
    with pytest.raises(FcitError, match="keeps images beside their records"):
        tabular.write(beside, "My-Plants", rows, tmp_path / "photos")


def test_a_folder_of_records_is_known_by_a_files_name(tmp_path: Path) -> None:
    folder = tmp_path / "Some"
    assert not layout.holds_records(folder)
    folder.mkdir()
    (folder / "notes.json").write_text("[]")
    (folder / "dataset.toml").symlink_to(tmp_path / "gone.toml")
    assert not layout.holds_records(folder)
    (tmp_path / "gone.toml").write_text("")
    assert layout.holds_records(folder)
    (folder / "dataset.toml").unlink()
    (folder / "test_3000.jsonl").write_text("")
    assert layout.holds_records(folder)


def test_two_files_of_the_same_records_are_refused(tmp_path: Path) -> None:
    root = official.write(tmp_path / "data")
    file = datasets.find("IconQA").file(root, "train")
    file.with_suffix(".jsonl").write_text("")
    with pytest.raises(FcitError, match=r"train.*\.json: train.*\.jsonl is beside it"):
        datasets.read(root, "IconQA", "train")
    file.unlink()
    assert datasets.find("IconQA").file(root, "train") == file.with_suffix(".jsonl")
