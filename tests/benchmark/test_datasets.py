"""Reading the official layout: three record forms, captions, boxes, and every malformed record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fcit.benchmark.datasets import DATASETS, find, image_path, present, read
from fcit.benchmark.missing import missing
from fcit.benchmark.records import BadRecord
from fcit.benchmark.rules.box import Box
from fcit.benchmark.rules.caption import Caption
from fcit.benchmark.rules.containment import Containment
from fcit.benchmark.rules.exact import Exact
from fcit.types import FcitError, Sample


def put(root: Path, name: str, split: str, value: Any) -> Path:
    row = DATASETS[name]
    files = {"train": row.train_file, "test": row.test_file}
    file = files[split] if split in files else row.rule.files[0]
    path = root / "instructions" / row.folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def turns(*said: str) -> list[dict[str, str]]:
    speakers = ("human", "gpt") * len(said)
    return [{"from": who, "value": what} for who, what in zip(speakers, said, strict=False)]


def taught(**changes: Any) -> dict[str, Any]:
    record = {
        "id": "7",
        "image": "DVQA/images/a.png",
        "conversations": turns("<image>\nWhy?", "so"),
    }
    return record | changes


def asked(**changes: Any) -> dict[str, Any]:
    return {
        "question_id": 3, "image": "DVQA/images/b.png", "text": "Why?", "answer": "so",
    } | changes  # fmt: skip


def test_rows_are_the_published_files():
    row = DATASETS["OCR-VQA"]
    assert (row.folder, row.train_file, row.test_file) == (
        "OCRVQA",
        "train_10w.json",
        "test_1w.json",
    )
    others = {name: row.rule for name, row in DATASETS.items() if row.rule != Exact()}
    assert others == {
        "FigureQA": Containment(), "DVQA": Containment(), "Grounding": Box(),
        "Flickr30k": Caption("val_coco_type.json"),
    }  # fmt: skip
    assert len(DATASETS) == 12


def test_training_records_become_samples(tmp_path):
    put(tmp_path, "DVQA", "train", [taught(), taught(id=8)])
    assert read(tmp_path, "DVQA", "train") == [
        Sample("7", "DVQA", "DVQA/images/a.png", "Why?", ("so",)),
        Sample("8", "DVQA", "DVQA/images/a.png", "Why?", ("so",)),
    ]


def test_several_turns_go_to_more(tmp_path):
    said = turns("<image>\nWhere is a?", "[0,0,1,1]", "Where is b?", "[0,0,.5,1]")
    put(tmp_path, "Grounding", "train", [taught(conversations=said)])
    (sample,) = read(tmp_path, "Grounding", "train")
    assert (sample.prompt, sample.answers) == ("Where is a?", ("[0,0,1,1]",))
    assert sample.more == (("Where is b?", "[0,0,.5,1]"),)


@pytest.mark.parametrize(
    ("written", "prompt"),
    [
        ("<image>\nWhat?\nOne word.", "What?\nOne word."),
        ("What?\nOne word.\n<image>", "What?\nOne word."),
        ("What is <image> this?", "What is this?"),
        ("Look.\n<image>\nWhat?", "Look.\nWhat?"),
        ("<image>What?", "What?"),
        ("What?", "What?"),
    ],
)
def test_image_placeholder_is_removed_wherever_it_stands(tmp_path, written, prompt):
    put(tmp_path, "DVQA", "train", [taught(conversations=turns(written, "so"))])
    put(tmp_path, "DVQA", "test", [asked(text=written)])
    assert read(tmp_path, "DVQA", "train")[0].prompt == prompt
    assert read(tmp_path, "DVQA", "test")[0].prompt == prompt


def test_test_records_become_samples_and_numbers_text(tmp_path):
    put(tmp_path, "TabMWP", "test", [asked(answer=12), asked(question_id="x", answer="1.5")])
    assert [(one.id, one.answers) for one in read(tmp_path, "TabMWP", "test")] == [
        ("3", ("12",)), ("x", ("1.5",)),
    ]  # fmt: skip


def test_record_without_id_takes_its_index(tmp_path):
    record = taught()
    del record["id"]
    put(tmp_path, "DVQA", "train", [record, record])
    assert [one.id for one in read(tmp_path, "DVQA", "train")] == ["0", "1"]


def test_box_is_the_answer_of_grounding(tmp_path):
    record = asked(answer_bbox="[0.1,0.2,0.3,0.4]", size=[640, 480])
    del record["answer"]
    put(tmp_path, "Grounding", "test", [record])
    assert read(tmp_path, "Grounding", "test")[0].answers == ("[0.1,0.2,0.3,0.4]",)
    put(tmp_path, "Grounding", "test", [record | {"answer_bbox": "left"}])
    with pytest.raises(FcitError, match=r"test_6000.json, record 1: answer_bbox: 'left'"):
        read(tmp_path, "Grounding", "test")


def test_captions_come_from_the_coco_file_by_the_place_in_the_test_file(tmp_path):
    records = [asked(question_id="x"), asked(question_id="y")]
    for record in records:
        del record["answer"]
    put(tmp_path, "Flickr30k", "test", records)
    notes = [{"image_id": 1 + i % 2, "id": i, "caption": f"caption {i}"} for i in range(10)]
    put(tmp_path, "Flickr30k", "captions", {"images": [], "annotations": notes})
    first, second = read(tmp_path, "Flickr30k", "test")
    assert first.answers == tuple(f"caption {i}" for i in (0, 2, 4, 6, 8))
    assert (second.id, len(second.answers)) == ("y", 5)


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        ([], r'val_coco_type.json: must be an object with a list of "annotations"'),
        ({"annotations": [{"image_id": 2, "caption": "a"}]}, "image_id 2, but the test file has 1"),
        (
            {"annotations": [{"image_id": "1", "caption": "a"}]},
            "annotation 1: needs a whole number",
        ),
        ({"annotations": [{"image_id": 1}]}, "annotation 1: needs"),
        ({"annotations": ["a"]}, "annotation 1: needs"),
        ({"annotations": []}, r"val_brief.json, record 1: val_coco_type.json has no annotation"),
    ],
)
def test_malformed_captions_are_named(tmp_path, captions, said):
    put(tmp_path, "Flickr30k", "test", [asked()])
    put(tmp_path, "Flickr30k", "captions", captions)
    with pytest.raises(FcitError, match=said):
        read(tmp_path, "Flickr30k", "test")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("text", "must be an object, not text"),
        (taught(conversations=None), "conversations: must be a list"),
        (taught(conversations=[]), "conversations: must be a list"),
        (taught(conversations=turns("a", "b", "c")), "conversations: must be a list of pairs"),
        (taught(conversations=turns("a", "b")[::-1]), 'conversations, turn 1: .*"from": "human"'),
        (taught(conversations=["a", "b"]), "conversations, turn 1"),
        (taught(conversations=turns("<image>", "b")), "conversations: the instruction is empty"),
        (taught(conversations=[{"from": "human"}, {}]), "turn 1, value: is missing"),
        (
            taught(conversations=[*turns("a"), {"from": "gpt", "value": ["b"]}]),
            "turn 2, value: must be text, not a list",
        ),
        (taught(id=[1]), "id: must be text or a whole number, not a list"),
        (taught(image=None), "image: must be a path"),
        (taught(image=""), "image: must be a path"),
        (taught(image="/etc/passwd"), "image: '/etc/passwd' leaves datasets/"),
        (taught(image="../a.png"), "leaves datasets/"),
        (taught(image="DVQA/../../a.png"), "leaves datasets/"),
        (taught(image="DVQA\\..\\..\\a.png"), "leaves datasets/"),
        (taught(image="C:\\a.png"), "leaves datasets/"),
    ],
)
def test_malformed_training_records_are_named(tmp_path, record, said):
    put(tmp_path, "DVQA", "train", [taught(), record])
    with pytest.raises(FcitError, match=rf"DVQA/train.json, record 2: {said}|{said}") as caught:
        read(tmp_path, "DVQA", "train")
    assert "train.json, record 2: " in str(caught.value)


@pytest.mark.parametrize("key", ["text", "answer", "image"])
def test_missing_fields_of_test_records_are_named(tmp_path, key):
    record = asked()
    del record[key]
    put(tmp_path, "DVQA", "test", [asked(), asked(), record])
    with pytest.raises(FcitError, match=f"test.json, record 3: {key}: "):
        read(tmp_path, "DVQA", "test")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[{", "not valid JSON"),
        ({"a": 1}, "must hold a list of records, not an object"),
        ([], "holds no records"),
    ],
)
def test_malformed_files_are_named(tmp_path, content, said):
    put(tmp_path, "DVQA", "train", content)
    with pytest.raises(FcitError, match=f"train.json: {said}"):
        read(tmp_path, "DVQA", "train")


def test_links_to_another_disk_are_followed_but_no_path_climbs_out(tmp_path):
    root, away = tmp_path / "root", tmp_path / "disk2"
    (root / "datasets" / "DVQA").mkdir(parents=True)
    away.mkdir()
    (away / "a.png").write_bytes(b"on another disk")
    (root / "datasets" / "DVQA" / "folder").symlink_to(away)
    (root / "datasets" / "DVQA" / "b.png").symlink_to(away / "a.png")
    for image in ("./DVQA//folder/a.png", "DVQA/b.png"):
        put(root, "DVQA", "train", [taught(image=image)])
        (sample,) = read(root, "DVQA", "train")
        assert image_path(root, sample).read_bytes() == b"on another disk"
    for image in ("DVQA/folder/../../../../disk2/a.png", "../disk2/a.png", str(away / "a.png")):
        put(root, "DVQA", "train", [taught(image=image)])
        with pytest.raises(FcitError, match="leaves datasets/"):
            read(root, "DVQA", "train")


def test_datasets_folder_may_itself_be_a_link(tmp_path):
    (tmp_path / "elsewhere" / "DVQA").mkdir(parents=True)
    root = tmp_path / "root"
    put(root, "DVQA", "train", [taught(image="DVQA/a.png")])
    (root / "datasets").symlink_to(tmp_path / "elsewhere")
    (sample,) = read(root, "DVQA", "train")
    assert image_path(root, sample) == root / "datasets" / "DVQA" / "a.png"


def test_a_dataset_without_a_row_is_a_folder_of_its_name_scored_exactly(tmp_path):
    row = find("My-VQA")
    assert (row.folder, row.train_file, row.test_file) == ("My-VQA", "train.json", "test.json")
    assert row.rule == Exact()
    (tmp_path / "instructions" / "My-VQA").mkdir(parents=True)
    (tmp_path / "instructions" / "OCRVQA").mkdir()
    assert present(tmp_path) == ["OCR-VQA", "My-VQA"]
    assert missing(tmp_path, [row]) == {
        "My-VQA": ["instructions/My-VQA/train.json", "instructions/My-VQA/test.json"]
    }


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", ".hidden"])
def test_a_name_that_is_no_folders_is_refused(tmp_path, name):
    with pytest.raises(FcitError, match="must be that of a folder"):
        read(tmp_path, name, "train")


def test_missing_names_every_absent_file(tmp_path):
    assert missing(tmp_path, [find("Flickr30k")]) == {
        "Flickr30k": [
            "instructions/Flickr30k-cap/train_brief_4w.json",
            "instructions/Flickr30k-cap/val_brief.json",
            "instructions/Flickr30k-cap/val_coco_type.json",
            "datasets/Flickr30k",
        ]
    }
    put(tmp_path, "DVQA", "train", [])
    (tmp_path / "datasets" / "DVQA").mkdir(parents=True)
    assert missing(tmp_path, [find("DVQA")] * 2) == {"DVQA": ["instructions/DVQA/test.json"]}


def test_mini_suite_reads_like_the_official_data(suite):
    for name in DATASETS:
        assert missing(suite, [find(name)]) == {}
        for split, count in (("train", 40), ("test", 12)):
            samples = read(suite, name, split)
            assert len({one.id for one in samples}) == len(samples) == count
            assert all("<image>" not in one.prompt for one in samples)
            assert all(image_path(suite, one).is_file() for one in samples)
    captions = [one.answers for one in read(suite, "Flickr30k", "test")]
    assert {len(answers) for answers in captions} == {5}


def test_parse_yields_faults_and_goes_on(tmp_path):
    path = put(tmp_path, "DVQA", "train", [taught(image="../x"), taught()])
    fault, sample = find("DVQA").parse(tmp_path, "train")
    assert fault == BadRecord(path, 1, "image: '../x' leaves datasets/")
    assert isinstance(sample, Sample)
