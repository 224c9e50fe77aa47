"""Importing a table: what comes out is a dataset that passes the check, mistakes are named by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fcit.benchmark import datasets, tabular
from fcit.benchmark.check import check
from fcit.types import FcitError
from official import Bars


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "in").mkdir(parents=True)
    for at in range(10):
        Image.new("RGB", (4, 3), (20 * at, 0, 0)).save(folder / "in" / f"{at}.png")
    Image.new("RGB", (4, 3), (0, 0, 0)).save(folder / "twin.bmp")  # shows what in/0.png shows
    return folder


def csv(folder: Path, *lines: str, header: str = "image,question,answer") -> Path:
    path = folder / "table.csv"
    path.write_bytes(("\ufeff" + "\r\n".join((header, *lines)) + "\r\n").encode())
    return path


TEN = [f'in/{at}.png,"What, then?\nOne word.",{at}' for at in range(10)]


def test_a_csv_becomes_a_dataset_that_passes_the_check(tmp_path, photos):
    rows = tabular.read(csv(tmp_path, *TEN, "twin.bmp,Why?,so"), "csv")
    assert rows[0] == tabular.TableRow(2, "in/0.png", "What, then?\nOne word.", "0")
    root, bars = tmp_path / "data", Bars()
    made = tabular.write(root, "My-VQA", rows, photos, watch=bars)
    assert made == (9, 2, 11)
    assert bars.ended == {"images": (11, 11), "copies": (11, 11)}
    report = check(root)
    assert (report.problems, report.counts) == ([], {"My-VQA": {"train": 9, "test": 2}})
    train, test = (datasets.read(root, "My-VQA", split) for split in ("train", "test"))
    assert {(one.id, one.image) for one in (*train, *test)} == {
        (str(row.number), f"My-VQA/{row.image}") for row in rows
    }
    assert all(one.answers[0] in (one.image[-5], "so") for one in (*train, *test))
    first = {one.id for one in test}
    assert ("2" in first) == ("12" in first)  # in/0.png and twin.bmp show the same
    assert not list(root.rglob(".*"))


def test_the_choice_of_test_rows_is_the_seeds(tmp_path, photos):
    rows = tabular.read(csv(tmp_path, *TEN), "csv")

    def chosen(out: str, seed: int, share: float = 0.3) -> list[str]:
        tabular.write(tmp_path / out, "A", rows, photos, share, seed)
        return [one.id for one in datasets.read(tmp_path / out, "A", "test")]

    assert chosen("a", 1) == chosen("b", 1) != chosen("c", 2)
    assert [len(chosen("d", 1, 0.5)), len(chosen("e", 1, 0.999)), len(chosen("f", 1, 0.001))] == [
        5,
        9,
        1,
    ]


def test_json_lines_and_a_second_dataset_of_a_folder(tmp_path, photos):
    path, root = tmp_path / "t.jsonl", tmp_path / "data"
    rows = [
        {"image": f"in/{at}.png", "question": "<image>\n?! <image> !", "answer": at, "more": []}
        for at in range(4)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert {row.question for row in tabular.read(path, "jsonl")} == {"?! !"}
    for name in ("A", "B"):
        tabular.write(root, name, tabular.read(path, "jsonl"), photos, 0.5)
    assert datasets.present(root) == ["A", "B"]
    assert {one.answers[0] for one in datasets.read(root, "B", "train")} < {"0", "1", "2", "3"}
    assert datasets.read(root, "B", "test")[0].prompt == "?! !"
    assert "<image>" not in (root / "instructions" / "B" / "test.json").read_text("utf-8")
    assert (root / "instructions" / "B" / "train.json").read_text("utf-8").count("<image>") == 2


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), "holds no rows"),
        (("a.png,?,b", "a.png,?"), "row 3: has 2 columns, but the header 3"),
        (("a.png,,b",), "row 2, column question: is empty"),
        (("a.png,?,  ",), "row 2, column answer: is empty"),
        (("a.png,<image>,b",), "row 2, column question: is empty"),
        (("../a.png,?,b",), "row 2, column image: '../a.png' leaves the folder of images"),
        (("/a.png,?,b",), "row 2, column image: '/a.png' leaves"),
        (('a.png,?,"b',), "row 2: not valid CSV"),
    ],
)
def test_mistakes_of_a_csv_are_named_by_row_and_column(tmp_path, lines, said):
    with pytest.raises(FcitError, match=f"table.csv[:,] {said}"):
        tabular.read(csv(tmp_path, *lines), "csv")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("image,text,answer", "row 1: no column question; there are image, text, answer"),
        ("image,question,answer,image", "row 1: two columns image"),
    ],
)
def test_a_header_without_the_columns_is_refused(tmp_path, header, said):
    with pytest.raises(FcitError, match=said):
        tabular.read(csv(tmp_path, header=header), "csv")
    with pytest.raises(FcitError, match="no such file"):
        tabular.read(tmp_path / "gone.csv", "csv")
    (tmp_path / "latin.csv").write_bytes(b"image,question,answer\na.png,\xe9?,b")
    with pytest.raises(FcitError, match="latin.csv: cannot be read"):
        tabular.read(tmp_path / "latin.csv", "csv")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[1]", "line 2: must be an object, not a list"),
        ("{", "line 2: not valid JSON"),
        ('{"image": "a.png", "question": "?"}', "line 2, column answer: is missing"),
        (
            '{"image": 3, "question": "?", "answer": "a"}',
            "line 2, column image: must be a path",
        ),
        (
            '{"image": "a", "question": "?", "answer": true}',
            "column answer: must be text, not a truth",
        ),
    ],
)
def test_mistakes_of_json_lines_are_named_by_line_and_column(tmp_path, value, said):
    path = tmp_path / "t.jsonl"
    path.write_text("\n" + value)
    with pytest.raises(FcitError, match=said):
        tabular.read(path, "jsonl")


def test_nothing_is_left_of_an_import_that_cannot_be(tmp_path, photos, monkeypatch):
    root = tmp_path / "data"
    rows = tabular.read(csv(tmp_path, *TEN), "csv")

    def refused(said: str, name: str = "A", **changes: Any) -> None:
        given = {"rows": rows, "images": photos} | changes
        with pytest.raises(FcitError, match=said):
            tabular.write(root, name, **given)
        assert not (root / "instructions" / name).exists()
        assert not (root / "datasets" / name).exists()
        assert not list(root.rglob(".*"))

    lost = tabular.read(csv(tmp_path, *TEN[:3], "x.png,?,a", "y.png,?,a", "x.png,!,a"), "csv")
    refused(r"A, row 5, column image: 'x\.png' in .* is missing \(and 1 more images\)", rows=lost)
    (photos / "in" / "9.png").write_text("no image")
    refused(r"row 11, column image: 'in/9\.png' in .* cannot be decoded", rows=rows)
    refused("'OCRVQA' is a dataset of the benchmark", name="OCRVQA")
    refused("must be that of a folder", name="a/b")
    refused("--test-share: 1.0 must lie between 0 and 1", test_share=1.0)
    refused("gone: no such folder", images=tmp_path / "gone")
    refused("all rows show the same image", rows=rows[:1] * 3)
    monkeypatch.setattr(
        "fcit.benchmark.datasets.write_json", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    refused("A cannot be written: full", rows=rows[:4])
    monkeypatch.undo()
    tabular.write(root, "A", rows[:4], photos)
    with pytest.raises(FcitError, match="already there; choose another name"):
        tabular.write(root, "A", rows[:4], photos)
