"""What people write in records and tables is read as it is meant, or named by file and record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fcit.benchmark import datasets, layout, rules, tabular
from fcit.benchmark.check import check
from fcit.benchmark.pictures import content
from fcit.benchmark.predictions import score
from fcit.files import read_json, read_toml
from fcit.recipe.config import load, validate
from fcit.types import FcitError
from fcit.worker.experiment import Experiment

COMPOSED, TAKEN_APART = "caf\u00e9", "cafe\u0301"


def folder(root: Path, answers: list[Any], name: str = "My-A", field: str = "answer") -> Path:
    """A dataset whose training and test records have these answers."""
    place = root / "instructions" / name
    place.mkdir(parents=True)
    (root / "datasets").mkdir()
    for at in range(len(answers)):
        Image.new("RGB", (4, 4), (at, 0, 0)).save(root / "datasets" / f"{at}.png")
    taught = [
        {"image": f"{at}.png", "conversations": [{"from": "human", "value": "Why?"}]}
        for at in range(len(answers))
    ]
    asked = [{"image": f"{at}.png", "text": "So?", field: one} for at, one in enumerate(answers)]
    for record, answer in zip(taught, answers, strict=True):
        record["conversations"].append({"from": "gpt", "value": answer})
    for split, rows in (("train", taught), ("test", asked)):
        (place / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    return place


@pytest.mark.parametrize(
    ("written", "meant"),
    [(1, "1"), (1.0, "1"), (-0.0, "0"), (7.5, "7.5"), (1e22, "1e+22"), (TAKEN_APART, COMPOSED),
     ("a\tb\n", "a\tb\n"), ("\ufeffyes", "yes"), (10**30, str(10**30))],
)  # fmt: skip
def test_an_answer_is_read_as_it_is_meant(tmp_path: Path, written: Any, meant: str) -> None:
    folder(tmp_path, [written])
    for split in ("train", "test"):
        assert datasets.read(tmp_path, "My-A", split)[0].answers == (meant,)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (float("nan"), "must be text, not nan"),
        (float("inf"), "must be text, not inf"),
        (None, "must be text, not null"),
        (True, "must be text, not a truth value"),
        (["a"], "must be text, not a list"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("\u200b", "is empty"),
        ("\ud83d", "U[+]D83D, which is no character"),
        ("a\0b", "U[+]0000, which is no character"),
    ],
)
def test_what_is_no_answer_is_named_by_record_and_field(
    tmp_path: Path, written: Any, said: str
) -> None:
    folder(tmp_path, ["a", written])
    for split, field in (("train", "conversations, turn 2, value"), ("test", "answer")):
        with pytest.raises(FcitError, match=f"{split}.json, record 2: {field}: .*{said}"):
            datasets.read(tmp_path, "My-A", split)
    assert [one.record for one in check(tmp_path).problems] == ["record 2", "record 2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"image": "0.png", "text": "So?", "answer": "a", "answer": "b"}', "the key .answer. stands tw"),
        ('{"image": "0.png", "text": "So?", "answer": 1%s}' % ("0" * 5000), "number of 5001 digits"),
        ('{"image": "0.png", "text": "So?", "answer": 1e400}', "must be text, not inf"),
        ('{"image": "0.png", "text": "So?", "answer": "a", "question_id": " "}', "question_id: is em"),
        ('{"image": "0.png", "text": "So?", "answer": "a", "id": "\\u001b[2J"}', "control character"),
        ('{"image": "a\\u0007.png", "text": "So?", "answer": "a"}', "cannot be a path"),
        ('{"image": "%s.png", "text": "So?", "answer": "a"}' % ("a" * 300), "cannot be a path"),
    ],
)  # fmt: skip
def test_what_json_allows_but_means_nothing_is_named_by_record(
    tmp_path: Path, text: str, said: str
) -> None:
    place = folder(tmp_path, ["a"])
    first = '{"image": "0.png", "text": "So?", "answer": "a"}'
    (place / "test.json").write_text(f"[{first}, {text}]")
    with pytest.raises(FcitError, match=rf"test\.json, record 2: .*{said}"):
        datasets.read(tmp_path, "My-A", "test")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("NaN", "text: must be text, not nan"),
        ("null", "text: must be text, not null"),
        ('"\\ud83d"', "text: holds U[+]D83D"),
        ('"a", "text": "b"', "the key 'text' stands twice"),
        ("1" * 5000, "a whole number of 5000 digits"),
    ],
)
def test_what_is_no_prediction_is_named_by_line(tmp_path: Path, text: str, said: str) -> None:
    place = folder(tmp_path, ["a", "b"])
    lines = ['\ufeff{"question_id": "0", "text": ""}', f'{{"question_id": "1", "text": {text}}}']
    (tmp_path / "said.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(FcitError, match=rf"said\.jsonl, line 2: {said}"):
        score("My-A", place / "test.json", tmp_path / "said.jsonl", "strict")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("[]".encode("utf-16"), "it is in UTF-16 or UTF-32; save it in UTF-8"),
        ("[]".encode("utf-32"), "it is in UTF-16 or UTF-32; save it in UTF-8"),
        (b"a = " + b"1" * 5000, "holds a whole number of more than 4300 digits"),
        (b"[\n1,\n\xe9]", r"line 3 is not in UTF-8 \(byte 0xe9\); save it"),
        (b"a = " + b"[" * 100_000, "too deeply nested"),
    ],
)
def test_a_file_that_is_no_text_is_named_with_its_encoding(
    tmp_path: Path, data: bytes, said: str
) -> None:
    path = tmp_path / "a.file"
    path.write_bytes(data)
    for reader in (read_toml,) if data.startswith(b"a") else (read_json, read_toml):
        with pytest.raises(FcitError, match=f"a.file: .*{said}"):
            reader(path)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    place = folder(tmp_path, ["a", "b"])
    for file in place.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    (place / "dataset.toml").write_bytes(b'\xef\xbb\xbfrule = "exact"')
    assert check(tmp_path).problems == []
    assert read_json(place / "test.json")[0]["answer"] == "a"
    assert read_toml(place / "dataset.toml") == {"rule": "exact"}


def test_names_are_found_in_either_unicode_form(tmp_path: Path) -> None:
    folder(tmp_path, ["a"], name=TAKEN_APART)
    assert datasets.present(tmp_path) == [COMPOSED]
    (sample,) = datasets.read(tmp_path, TAKEN_APART, "train")
    assert (sample.dataset, check(tmp_path).problems) == (COMPOSED, [])
    (tmp_path / "datasets" / "0.png").rename(tmp_path / "datasets" / f"{TAKEN_APART}.png")
    for name in (COMPOSED, TAKEN_APART):
        assert layout.locate([tmp_path / "datasets"], f"{name}.png").is_file()
    table = tmp_path / "t.csv"
    table.write_text(f"image;question;answer\n{COMPOSED}.png;Why, then?; x \n", encoding="utf-8")
    (row,) = tabular.read(table, "csv")
    assert (row.image, row.question, row.answer) == (f"{COMPOSED}.png", "Why, then?", "x")


def test_rules_are_found_by_a_name_in_either_unicode_form(tmp_path: Path) -> None:
    place = folder(tmp_path, ["a"], name=COMPOSED)
    (place / "rule.py").write_text(
        "from fcit.benchmark.rules import Rule\n"
        "class A(Rule):\n    def right(self, *_):\n        return 1\n"
    )
    files = {TAKEN_APART: str(place / "rule.py")}
    given = {"data": {"root": str(tmp_path), "rules": files}, "setting": {"order": [TAKEN_APART]}}
    dataset = Experiment(validate(given)).dataset(COMPOSED)
    assert dataset.score(["b"], dataset.read(tmp_path, "test"), "strict").percent == 100
    found = datasets.find(TAKEN_APART, tmp_path, rules.load(files))
    assert type(found.rule).__name__ == "A"


def test_answers_match_in_either_unicode_form(tmp_path: Path) -> None:
    place = folder(tmp_path, [COMPOSED, TAKEN_APART, "1", 2.0])
    texts = [TAKEN_APART, COMPOSED, 1.0, "2"]
    rows = [json.dumps({"question_id": at, "text": text}) for at, text in enumerate(texts)]
    (tmp_path / "said.jsonl").write_text("\n".join(rows))
    assert score("My-A", place / "test.json", tmp_path / "said.jsonl", "strict").score == 100
    samples = datasets.read(tmp_path, "My-A", "test")
    answers = [TAKEN_APART, TAKEN_APART, "1", "2"]  # as a model may write them
    assert datasets.find("My-A").score(answers, samples, "strict").percent == 100


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ("[12,30,200,220]", "is not within 0 to 1; pixels?"),
        ("[0.1,0.1,0.2,1.1]", "is not within 0 to 1"),
        ("[-0.1,0.1,0.2,0.3]", "is not within 0 to 1"),
        ("[0.5,0.1,0.1,0.2]", "is inverted"),
        ("[0.1,0.5,0.2,0.1]", "is inverted"),
        ("[0.1,0.1,0.1,0.2]", "has no area"),
        ("[0.1,0.1,NaN,0.2]", "is not of the form"),
    ],
)
def test_a_box_lies_in_its_image_and_is_not_inverted(tmp_path: Path, box: str, said: str) -> None:
    place = folder(tmp_path, ["[0.1,0.2,0.3,0.4]", box, "a spoon"][:2], "My-B", "answer_bbox")
    (place / "dataset.toml").write_text('rule = "box"')
    with pytest.raises(FcitError, match=rf"test\.json, record 2: answer_bbox: .*{said}"):
        datasets.read(tmp_path, "My-B", "test")
    if (
        "no area" in said or "form" in said
    ):  # in training: rounded to a line, or another kind of answer
        assert len(datasets.read(tmp_path, "My-B", "train")) == 2
    else:
        with pytest.raises(FcitError, match=rf"train\.json, record 2: .*{said}"):
            datasets.read(tmp_path, "My-B", "train")


def test_a_folder_in_an_images_place_is_named(tmp_path: Path) -> None:
    folder(tmp_path, ["a"])
    (tmp_path / "datasets" / "0.png").unlink()
    (tmp_path / "datasets" / "0.png").mkdir()
    (problem,) = check(tmp_path).problems
    assert problem.what == "image '0.png': is a folder"


def test_an_image_path_that_a_file_system_refuses_is_named_with_the_others(tmp_path: Path) -> None:
    place = folder(tmp_path, ["a", "b", "c"])
    rows = json.loads((place / "train.json").read_text())
    rows[0]["image"] = "植" * 100 + ".png"  # 304 bytes; a name has at most 255
    rows[2]["image"] = "/".join(["植" * 80] * 20)  # 4819 bytes in 1619 characters
    (place / "train.json").write_text(json.dumps(rows))
    (tmp_path / "datasets" / "1.png").unlink()
    found = [problem.what for problem in check(tmp_path).problems]
    assert sum("cannot be a path" in what for what in found) == 2, found
    assert any(what.startswith("image '1.png': is missing") for what in found), found
    assert content(tmp_path / ("a" * 300)) == "cannot be read: File name too long"


@pytest.mark.parametrize("written", ["1" * 5000, '"a\\u0000b"', "[" * 3000])
def test_a_recipes_value_that_means_nothing_is_one_line(tmp_path: Path, written: str) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(f"[method]\nname = {written}\n")
    with pytest.raises(FcitError, match=r"small\.toml: "):
        load(recipe)
    recipe.write_text("")
    with pytest.raises(FcitError, match="--set"):
        load(recipe, [f"method.name={written}"])
