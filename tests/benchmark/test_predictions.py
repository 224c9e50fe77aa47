"""Scoring files of predictions: golden cases by hand for every rule, the reference's quirks included."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fcit.benchmark import datasets
from fcit.benchmark.predictions import score
from fcit.types import FcitError


def truth_file(folder: Path, answers: dict[Any, Any], key: str = "answer") -> Path:
    path = folder / "test.json"
    records = [
        {"question_id": name, "image": "a.png", "text": "?", key: answer}
        for name, answer in answers.items()
    ]
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def said_file(folder: Path, *said: tuple[Any, str]) -> Path:
    path = folder / "said.jsonl"
    rows = [json.dumps({"question_id": name, "text": text}) for name, text in said]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def percent(
    folder: Path, dataset: str, mode: Any, truths: list[Any], said: list[str], key: str = "answer"
) -> float:
    truth = truth_file(folder, dict(enumerate(truths)), key)
    found = score(dataset, truth, said_file(folder, *enumerate(said)), mode)
    assert (found.samples, found.mode, found.dataset) == (len(said), mode, dataset)
    return found.score


@pytest.mark.parametrize(
    "dataset",
    [
        "ArxivQA",
        "ImageNet-R",
        "IconQA",
        "CLEVR-Math",
        "super-CLEVR",
        "OCR-VQA",
        "TabMWP",
        "A-OKVQA",
    ],
)
def test_exact_answers(tmp_path, dataset):
    truths = ["Dog", "a cat", 7, "yes", "no"]
    said = ["DOG", "a cat.", " 7\n", "yes", ""]
    # case only: DOG and yes, 2 of 5
    assert percent(tmp_path, dataset, "reference", truths, said) == pytest.approx(40)
    # outer space and one full stop too: all but the empty answer, 4 of 5
    assert percent(tmp_path, dataset, "strict", truths, said) == pytest.approx(80)


@pytest.mark.parametrize("dataset", ["FigureQA", "DVQA"])
def test_containment(tmp_path, dataset):
    truths = ["yes", "Yes", "no", "drama", "12", "no"]
    said = ["YES", "ye", "", "rama", "2", "no."]
    # upper-cased parts of the truth: YES, YE, the empty one, RAMA, 2; "NO." is no part of "NO": 5 of 6
    assert percent(tmp_path, dataset, "reference", truths, said) == pytest.approx(500 / 6)
    # equal without the full stop: YES and no., 2 of 6
    assert percent(tmp_path, dataset, "strict", truths, said) == pytest.approx(200 / 6)


BOXES = [
    # prediction, truth, right by reference, right by strict
    ("[0.0,0.0,1.0,0.75]", "[0.0,0.0,1.0,1.0]", True, True),  # .0 and 0.7: IoU 0.7; strict 0.75
    ("[0.0,0.0,1.0,0.55]", "[0.0,0.0,1.0,1.0]", False, True),  # 0.5 is not over 0.5; strict 0.55
    ("[0.0,0.0,1.0,0.5]", "[0.0,0.0,1.0,1.0]", False, False),  # "0." is 0: no area; strict 0.5
    ("[1.0,0.0,1.0,1.00]", "[0.0,0.0,1.0,1.0]", True, False),  # 1.0 becomes .0: the whole; no width
    ("[[0.0,0.0,1.0,1.0]]", "[0.0,0.0,1.0,1.0]", True, False),  # all brackets go; not the form
    ("(0.0,0.0,1.0,1.0)", "[0.0,0.0,1.0,1.0]", True, False),  # parentheses are the outer characters
    ("0.0,0.0,1.0,1.0", "[0.0,0.0,1.0,1.0]", True, True),  # brackets are optional in both
    ("[0.0,0.0,1.0]", "[0.0,0.0,1.0,1.0]", False, False),  # three
    ("[0.0,0.0,1.0,1.0,1.0]", "[0.0,0.0,1.0,1.0]", False, False),  # five
    ("[0,0,1,1]", "[0.0,0.0,1.0,1.0]", False, True),  # ",0,1," holds no numbers at its ends
    ("the left one", "[0.0,0.0,1.0,1.0]", False, False),
    ("", "[0.0,0.0,1.0,1.0]", False, False),
    ("[0.0,0.0,0.5,0.50]", "[0.25,0.0,0.75,0.5]", False, False),  # .125 of .375: a third
    ("[0.5,0.0,1.0,0.56]", "[0.5,0.1,1.0,0.7]", True, True),  # .2 of .35 = .57; .23 of .35 = .66
]


def test_boxes(tmp_path):
    said, truths = [one[0] for one in BOXES], [one[1] for one in BOXES]
    for mode, column in (("reference", 2), ("strict", 3)):
        right = [one[column] for one in BOXES]
        for each, text, truth in zip(right, said, truths, strict=True):
            alone = percent(tmp_path, "Grounding", mode, [truth], [text], "answer_bbox")
            assert alone == 100 * each, (mode, text)
        # 6 of 14 by the reference, 5 of 14 strictly
        together = percent(tmp_path, "Grounding", mode, truths, said, "answer_bbox")
        assert together == pytest.approx(100 * sum(right) / 14)
    assert [sum(one[2] for one in BOXES), sum(one[3] for one in BOXES)] == [6, 5]


def test_the_references_denominator_is_the_number_of_predictions(tmp_path):
    truth = truth_file(tmp_path, {"a": "1", "b": "2", "c": "3", "d": "4"})
    said = said_file(tmp_path, ("a", "1"), ("a", "1"), ("b", "1"))
    found = score("IconQA", truth, said, "reference")
    assert found.score == pytest.approx(200 / 3)  # right, right again, wrong: 2 of 3, not of 4
    assert (found.samples, found.questions, found.missing, found.repeated) == (3, 4, 2, 1)
    with pytest.raises(FcitError, match=r"said\.jsonl: 2 predictions for the question 'a'"):
        score("IconQA", truth, said, "strict")
    with pytest.raises(FcitError, match=r"no prediction for 3 of 4 questions, the first is 'b'"):
        score("IconQA", truth, said_file(tmp_path, ("a", "1")), "strict")


def test_repeated_questions_of_the_test_file(tmp_path):
    truth = truth_file(tmp_path, {"a": "1"})
    twice = [*json.loads(truth.read_text()), {"question_id": "a", "answer": "2"}]
    truth.write_text(json.dumps(twice))
    said = said_file(tmp_path, ("a", "2"))
    assert score("IconQA", truth, said, "reference").score == 100  # the last of them counts
    with pytest.raises(FcitError, match="record 2: question_id: 'a' is also that of an earlier"):
        score("IconQA", truth, said, "strict")


def test_order_and_type_of_question_ids_do_not_matter(tmp_path):
    truth = truth_file(tmp_path, {1: "a", 2: "b"})
    assert score("IconQA", truth, said_file(tmp_path, ("2", "b"), (1, "a")), "strict").score == 100


def test_a_run_counts_repeated_questions_as_the_published_scripts_do(tmp_path):
    """Both questions are asked, and the truth of the last is that of both."""
    dataset, texts = datasets.find("IconQA", tmp_path), ["cat", "dog", "dog"]
    truth = dataset.file(tmp_path, "test")
    truth.parent.mkdir(parents=True)
    asked = {"question_id": 1, "image": "IconQA/a.png", "text": "?"}
    truth.write_text(json.dumps([asked | {"answer": text} for text in texts]))
    ran = dataset.score(texts, dataset.read(tmp_path, "test"), "reference").percent
    said = said_file(tmp_path, *((1, text) for text in texts))
    assert ran == score("IconQA", truth, said, "reference").score == pytest.approx(200 / 3)


@pytest.mark.parametrize("mode", ["strict", "reference"])
def test_a_question_that_is_not_asked_is_refused(tmp_path, mode):
    truth = truth_file(tmp_path, {1: "a"})
    with pytest.raises(FcitError, match=r"prediction 2: .*test\.json has no question '7'"):
        score("IconQA", truth, said_file(tmp_path, (1, "a"), (7, "a")), mode)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not valid JSON"),
        ("[]", "line 2: must be an object, not a list"),
        ('{"text": "a"}', "line 2: question_id: is missing"),
        ('{"question_id": null, "text": "a"}', "line 2: question_id: must be text or a whole"),
        ('{"question_id": 1}', "line 2: text: is missing"),
        ('{"question_id": 1, "text": ["a"]}', "line 2: text: must be text, not a list"),
    ],
)
def test_malformed_predictions_are_named_by_line(tmp_path, line, said):
    (tmp_path / "p.jsonl").write_text("\n" + line + "\n")
    truth = truth_file(tmp_path, {1: "a"})
    with pytest.raises(FcitError, match=rf"p\.jsonl, {said}"):
        score("IconQA", truth, tmp_path / "p.jsonl", "strict")


def test_files_that_say_nothing_are_refused(tmp_path):
    truth, empty = truth_file(tmp_path, {1: "a"}), tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(FcitError, match="holds no predictions"):
        score("IconQA", truth, empty, "reference")
    with pytest.raises(FcitError, match=r"gone\.jsonl: no such file"):
        score("IconQA", truth, tmp_path / "gone.jsonl", "reference")
    said = said_file(tmp_path, (1, "a"))
    with pytest.raises(FcitError, match=r"gone\.json: no such file"):
        score("IconQA", tmp_path / "gone.json", said, "strict")
    with pytest.raises(FcitError, match=r"test\.json, record 1: answer_bbox: is missing"):
        score("Grounding", truth, said, "strict")


def test_names_are_those_of_the_benchmark_or_of_the_test_files_folder(tmp_path):
    own = tmp_path / "My-VQA"
    own.mkdir()
    said = said_file(tmp_path, (1, "A."))
    assert score("My-VQA", truth_file(own, {1: "a"}), said, "strict").score == 100
    with pytest.raises(FcitError, match="'Figureqa' is none of ArxivQA, .*Grounding"):
        score("Figureqa", truth_file(tmp_path, {1: "a"}), said, "strict")


# -- captions --------------------------------------------------------------------------------------


def coco(folder: Path, *captions: tuple[str, ...]) -> Path:
    path = folder / "val_coco_type.json"
    notes = [
        {"id": at, "image_id": image, "caption": caption}
        for image, many in enumerate(captions, 1)
        for at, caption in enumerate(many)
    ]
    images = [{"id": image, "file_name": f"{image}.jpg"} for image in range(1, len(captions) + 1)]
    path.write_text(json.dumps({"images": images, "annotations": notes}), encoding="utf-8")
    return path


def test_captions_strictly(tmp_path):
    truth = coco(tmp_path, ("A dog runs.",), ("The cat sits!",))
    # 4 of 4 unigrams and 2 of 2 bigrams are right, and there are no longer ones: pycocoevalcap's BLEU
    # is then 1, 1, (1e-6)^(1/3), (1e-12)^(1/4), all times the brevity penalty exp(1 - 6/4);
    # ROUGE-L: precision 1, recall 2/3, F at beta 1.2 = 2.44 P R / (R + 1.44 P) = 0.7722;
    # CIDEr is over 1 and counts as 1. Mean of the six: 0.49864
    bleu = 0.60653066 * (1 + 1 + 1e-6 ** (1 / 3) + 1e-12 ** (1 / 4))
    by_hand = 100 * (bleu + 2.44 * (2 / 3) / (2 / 3 + 1.44) + 1) / 6
    said = said_file(tmp_path, (1, "a dog"), (2, "The CAT"))
    assert score("Flickr30k", truth, said, "strict").score == pytest.approx(by_hand, rel=1e-6)
    assert by_hand == pytest.approx(49.864, abs=0.001)
    turned = said_file(tmp_path, (2, "The CAT"), (1, "a dog"))
    assert score("Flickr30k", truth, turned, "strict").score == pytest.approx(by_hand, rel=1e-6)


def test_captions_are_known_by_the_ids_of_the_test_file_beside_them(tmp_path):
    truth = coco(tmp_path, ("a dog runs over grass",), ("the cat sits on a mat",))
    said = said_file(tmp_path, ("y", "the cat sits on a mat"), ("x", "a dog runs over grass"))
    with pytest.raises(FcitError, match=r"question_id 'y' is none of the image numbers .*1 to 2\)"):
        score("Flickr30k", truth, said, "strict")
    records = [{"question_id": name, "image": "a.jpg", "text": "?"} for name in ("x", "y")]
    (tmp_path / "val_brief.json").write_text(json.dumps(records))
    assert score("Flickr30k", truth, said, "strict").score == pytest.approx(100)
    with pytest.raises(FcitError, match="no prediction for 1 of 2 questions"):
        score("Flickr30k", truth, said_file(tmp_path, ("y", "a")), "strict")
    with pytest.raises(FcitError, match="2 predictions for the question 'y'"):
        score("Flickr30k", truth, said_file(tmp_path, ("y", "a"), ("y", "a")), "strict")


def test_image_numbers_have_no_gaps(tmp_path):
    truth = coco(tmp_path, ("a",), (), ("b",))
    with pytest.raises(FcitError, match="no annotation with image_id 2"):
        score("Flickr30k", truth, said_file(tmp_path, (1, "a")), "strict")


def test_captions_in_reference_mode_need_java(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(FcitError, match=r"need Java.*--mode strict"):
        score("Flickr30k", tmp_path / "gone.json", tmp_path / "gone.jsonl", "reference")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not shutil.which("java"), reason="needs Java")
def test_captions_by_the_reference(tmp_path):
    captions = ("a brown dog runs over grass", "two cats sleep on a mat")
    truth = coco(tmp_path, *((one,) for one in captions))
    # word for word: BLEU-1..4, METEOR and ROUGE-L are 1 each and CIDEr 10, which nothing bounds:
    # (4 + 1 + 1 + 10) / 7 = 228.571 percent; ids do not count, the n-th is that of image n
    said = said_file(tmp_path, (9, captions[0]), (9, captions[1]))
    found = score("Flickr30k", truth, said, "reference")
    assert found.score == pytest.approx(1600 / 7, rel=1e-4)
    assert (found.samples, found.missing) == (2, 0)
    more = said_file(tmp_path, (1, "a"), (2, "b"), (3, "c"))
    with pytest.raises(FcitError, match=r"3 texts, but .* has 2 images"):
        score("Flickr30k", truth, more, "reference")
