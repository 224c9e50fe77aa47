"""Facts about a data folder: counted from the files, the same way for every root."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fcit import suite as mini
from fcit.benchmark import stats
from fcit.suite import drawn as drawing
from fcit.types import FcitError
from official import Bars

LIKE = {"ImageNet-R", "IconQA", "CLEVR-Math", "OCR-VQA", "super-CLEVR"}


def own(root: Path, name: str, train: list[tuple[str, str]], test: list[tuple[str, str]]) -> None:
    """A dataset of one's own: (prompt, answer) pairs, without images."""
    folder = root / "instructions" / name
    folder.mkdir(parents=True)
    (root / "datasets").mkdir(exist_ok=True)
    turns = [
        [{"from": "human", "value": f"<image>\n{prompt}"}, {"from": "gpt", "value": answer}]
        for prompt, answer in train
    ]
    training = [
        {"id": n, "image": f"{name}{n}.png", "conversations": said} for n, said in enumerate(turns)
    ]
    testing = [
        {"question_id": n, "image": f"{name}{n}.png", "text": prompt, "answer": answer}
        for n, (prompt, answer) in enumerate(test)
    ]
    (folder / "train.json").write_text(json.dumps(training), encoding="utf-8")
    (folder / "test.json").write_text(json.dumps(testing), encoding="utf-8")


def test_facts_are_counted_from_the_files(tmp_path):
    own(
        tmp_path,
        "Mine",
        [("What?\nOne word.", "red"), ("What?\nOne word.", "red"), ("Why?\nShort.", "blue")],
        [("What?\nOne word.", "blue"), ("Where?\nOne word.", "Blue."), ("Who?\nShort.", "red")],
    )
    own(tmp_path, "Yours", [("Where?\nOne word.", "5")], [("Where?\nOne word.", "4")])
    mine, yours = stats.collect(tmp_path, "strict")
    assert (mine.train, mine.test, mine.prompts, mine.answers) == (3, 3, 2, 2)
    assert mine.new == pytest.approx(200 / 3)
    assert (mine.form, mine.formed) == ("One word.", pytest.approx(200 / 3))
    assert (mine.shared, yours.shared) == (("Yours",), ("Mine",))
    assert (mine.common, mine.share) == ("red", pytest.approx(200 / 3))
    assert mine.chance == pytest.approx(200 / 3)
    assert (yours.new, yours.chance) == (0.0, 0.0)
    assert not mine.nearest and stats.neighbours([mine, yours]) == []
    first, second = stats.rows([mine, yours])
    assert list(first) == list(second)
    assert (first["answers"], first["commonest"], first["chance"]) == ("2", "red", "66.7 %")


def test_five_datasets_of_the_mini_suite_share_their_format_line(tmp_path):
    mini.write(tmp_path / "mini", seed=1, train=12, test=8)
    facts = {one.dataset: one for one in stats.collect(tmp_path / "mini", "strict")}
    assert facts.keys() == mini.GENERATORS.keys()
    for name, one in facts.items():
        assert (one.train, one.test) == (12, 8)
        assert set(one.shared) == (LIKE - {name} if name in LIKE else set())
        if name != "Grounding":
            assert one.formed == 100
    assert facts["OCR-VQA"].form == drawing.WORD


def test_nearest_datasets_are_found_by_text_image_and_both(tmp_path):
    for name in ("A", "B", "C"):
        own(tmp_path, name, [(f"{name}?", "1"), (f"{name}!", "2")], [(f"{name}?", "1")])
    towards = {  # of A, B and C in a plane, in degrees
        "text": {"A": 0, "B": 10, "C": 60},
        "image": {"A": 0, "B": 80, "C": 20},
    }
    heard: list[tuple[str, int]] = []

    def embed(kind, prompts, images):
        assert [path.parent.name for path in images] == ["datasets"] * len(prompts)
        heard.append((kind, len(prompts)))
        turns = np.radians([towards[kind][prompt[0]] for prompt in prompts])
        return np.stack([np.cos(turns), np.sin(turns)], axis=1)

    bars = Bars()
    facts = stats.collect(tmp_path, "strict", embed, watch=bars)
    assert heard == [("text", 2), ("image", 2)] * 3
    assert bars.ended == {"datasets": (3, 3)}
    first = facts[0].nearest
    assert {kind: one.dataset for kind, one in first.items()} == {
        "text": "B", "image": "C", "both": "C",
    }  # fmt: skip
    cosines = np.cos(np.radians([10, 20, 60]))
    assert first["text"].cosine == pytest.approx(cosines[0])
    assert first["image"].cosine == pytest.approx(cosines[1])
    assert first["both"].cosine == pytest.approx((cosines[1] + cosines[2]) / 2)
    assert stats.neighbours(facts)[0] == ("A", "B 0.985", "C 0.940", "C 0.720")


def test_a_lone_dataset_has_no_neighbour():
    assert stats.nearest({"A": {"text": np.ones(2), "image": np.ones(2)}}) == {}


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FcitError, match="no such folder"):
        stats.collect(tmp_path / "none", "strict")
    with pytest.raises(FcitError, match="not a data folder"):
        stats.collect(tmp_path, "strict")
    (tmp_path / "instructions").mkdir()
    with pytest.raises(FcitError, match="holds none"):
        stats.collect(tmp_path, "strict")
    (tmp_path / "instructions/DVQA").mkdir()
    with pytest.raises(FcitError, match=r"lacks .*instructions/DVQA/train\.json"):
        stats.collect(tmp_path, "strict")
