"""Scoring rules by hand-checked values, in both modes, the reference's quirks included."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fcit.benchmark import captions
from fcit.benchmark.datasets import DATASETS, find, read
from fcit.benchmark.rules.base import Accuracy, Mode
from fcit.benchmark.rules.box import iou, numbers
from fcit.benchmark.rules.box import read as read_box
from fcit.benchmark.rules.caption import Caption
from fcit.types import FcitError, Sample


def score(dataset: str, answers: list[str], truths: list[Sample], mode: Mode) -> Accuracy:
    return find(dataset).score(answers, truths, mode)


def chance(dataset: str, train: list[Sample], test: list[Sample], mode: Mode) -> float:
    return find(dataset).chance(train, test, mode)


def samples(dataset: str, *answers: str | tuple[str, ...]) -> list[Sample]:
    return [
        Sample(str(at), dataset, "a.png", "?", (one,) if isinstance(one, str) else one)
        for at, one in enumerate(answers)
    ]


def each(dataset: str, mode: str, *pairs: tuple[str, str]) -> list[bool]:
    truths = samples(dataset, *(truth for _, truth in pairs))
    found = score(dataset, [said for said, _ in pairs], truths, mode)  # type: ignore[arg-type]
    assert found.percent == pytest.approx(sum(found.each) / len(found.each))
    assert set(found.each) <= {0.0, 100.0}
    return [value == 100.0 for value in found.each]


PAIRS = (("Dog", "dog"), (" dog. ", "dog"), ("dog..", "dog"), ("a dog", "dog"), ("", "dog"))


def test_exact_answers():
    assert each("ImageNet-R", "strict", *PAIRS) == [True, True, False, False, False]
    assert each("ImageNet-R", "reference", *PAIRS) == [True, False, False, False, False]
    assert each("TabMWP", "strict", ("5", "5."), ("5.0", "5")) == [True, False]
    assert each("TabMWP", "reference", ("5", "5."), ("5.", "5.")) == [False, True]


@pytest.mark.parametrize("dataset", ["FigureQA", "DVQA"])
def test_reference_takes_a_part_of_the_truth_for_right(dataset):
    pairs = (("yes", "Yes"), ("es", "yes"), ("", "yes"), ("yes.", "yes"), ("no", "yes"))
    assert each(dataset, "reference", *pairs) == [True, True, True, False, False]
    assert each(dataset, "strict", *pairs) == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[0.1,0.2,0.3,0.4]", (0.1, 0.2, 0.3, 0.4)),
        (" 0, .5, 1., 1e-1 ", (0.0, 0.5, 1.0, 0.1)),
        ("[0.1,0.2,0.3]", None),
        ("[0.1,0.2,0.3,0.4", None),
        ("[0.1,0.2,0.3,nan]", None),
        ("[0.1,0.2,0.3,1e999]", None),
        ("", None),
    ],
)
def test_numbers_of_a_box(text, box):
    assert numbers(text) == box


def test_iou_by_hand():
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0
    assert iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0


def test_strict_boxes():
    truth = "[0.0,0.0,1.0,1.0]"
    pairs = (
        ("[0,0,1,1]", truth),
        (" [0.0, 0.0, 1.0, 0.51]. ", truth),
        ("[0.0,0.0,1.0,0.5]", truth),  # exactly a half is not more
        ("[1,1,0,0]", truth),  # not ordered
        ("[0,0,1]", truth),
        ("[0,0,1,1,1]", truth),
        ("everything", truth),
        ("", truth),
        ("[nan,0,1,1]", truth),
    )
    assert each("Grounding", "strict", *pairs) == [True, True] + [False] * 7


def test_reference_boxes_lose_their_outer_characters():
    # "[0.00,0.00,0.66,0.66]" is read as .00, 0.00, 0.66, 0.6
    assert read_box("[0.43,0.1,0.9,0.66]", "reference") == (0.43, 0.1, 0.9, 0.6)
    assert read_box("[-0.5,0.1,0.9,0.66]", "reference") == (0.5, 0.1, 0.9, 0.6)
    assert read_box("[0,0,1,1]", "reference") is None  # ",0,1," has no number at its ends
    assert read_box("[0.1,0.2,0.3]", "reference") is None
    # by the true numbers the overlap is 0.66 of 1.25, more than a half; by the read ones it is not
    pair = ("[0.0,0.0,1.0,0.66]", "[0.0,0.0,1.0,1.25]")
    assert each("Grounding", "strict", pair) == [True]
    assert each("Grounding", "reference", pair) == [False]
    assert each("Grounding", "reference", ("[0.0,0.0,1.0,1.00]", "[0.0,0.0,1.0,1.0]")) == [True]
    assert each("Grounding", "reference", ("", "[0,0,1,1]"), ("x", "[0,0,1,1]")) == [False, False]


def test_captions_by_hand():
    # unigrams 4 of 4, bigrams 2 of 2, no longer ones; brevity penalty exp(1 - 6/4)
    # ROUGE-L: precision 1, recall 2/3, beta 1.2; CIDEr 3.76, counted as 1
    truths = samples("Flickr30k", ("A dog runs.",), ("The cat sits!",))
    found = score("Flickr30k", ["a dog", "The CAT"], truths, "strict")
    brevity = 0.60653066
    bleu = brevity * (1 + 1 + 1e-6 ** (1 / 3) + 1e-12 ** (1 / 4))
    rouge = 2.44 * (2 / 3) / (2 / 3 + 1.44)
    assert found.percent == pytest.approx(100 * (bleu + rouge + 1) / 6, rel=1e-6)
    assert found.percent == pytest.approx(49.864, abs=0.001)
    assert found.each == pytest.approx([49.864] * 2, abs=0.02)


def test_cider_by_hand():
    # idf ln 2 for all: cosines 2/sqrt 6 and 1/sqrt 2, one bigram less: exp(-1/72), 10 / 4 orders
    expected = 10 / 4 * 0.98620 * (2 / 6**0.5 + 1 / 2**0.5)
    truths = [["a dog runs"], ["the cat sits"]]
    assert captions.ciders(["a dog"], truths)[0] == pytest.approx(expected / 2, rel=1e-4)


def test_ciders_agree_with_pycocoevalcap():
    from pycocoevalcap.cider.cider import Cider

    truths = [["a red dog runs", "the dog is fast"], ["a cat", "one cat sits"], ["a red bird sits"]]
    candidates = ["a red dog", "a cat sits", "x", "", "a red bird sits on a tree"]
    for candidate, mine in zip(candidates, captions.ciders(candidates, truths), strict=True):
        theirs, _ = Cider().compute_score(
            dict(enumerate(truths)), {at: [candidate] for at in range(3)}
        )
        assert mine == pytest.approx(theirs)


def test_captions_are_best_at_their_references_and_worst_at_nothing():
    truths = samples("Flickr30k", ("A dog runs on grass.", "A dog."), ("The cat sits on a mat.",))
    right = score("Flickr30k", ["a dog runs on grass", "The cat sits on a mat."], truths, "strict")
    wrong = score("Flickr30k", ["", ""], truths, "strict")
    assert right.percent == pytest.approx(100)
    assert wrong.percent == pytest.approx(0, abs=1e-3)
    assert right.each == pytest.approx([100, 100])
    half = score("Flickr30k", ["a dog runs on grass", ""], truths, "strict")
    assert half.each == pytest.approx([100, 0], abs=1e-3)
    assert 10 < half.percent < 90


def test_one_caption_alone_does_not_crash():
    found = score("Flickr30k", ["a dog"], samples("Flickr30k", ("a dog",)), "strict")
    assert 0 < found.percent <= 100  # no CIDEr: a corpus of one has no informative word


def test_scoring_captions_prints_nothing(capfd):
    score("Flickr30k", ["a dog"], samples("Flickr30k", ("a dog",)), "strict")
    assert capfd.readouterr() == ("", "")


def test_reference_captions_without_words_are_refused():
    with pytest.raises(FcitError, match="references of test record 2"):
        score("Flickr30k", ["a", "b"], samples("Flickr30k", ("a",), ("...",)), "strict")


def test_reference_captions_need_java(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(FcitError, match="need Java"):
        score("Flickr30k", ["a dog"], samples("Flickr30k", ("a dog",)), "reference")
    score("Flickr30k", ["a dog"], samples("Flickr30k", ("a dog",)), "strict")


def stand_in(meteor: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Java whose tokenizer gives back what it gets, and whose METEOR is a shell command."""
    java = folder / "java"
    java.write_text(f'#!/bin/sh\ncase "$*" in *PTBTokenizer*) cat;; *) {meteor};; esac\n')
    java.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(java))
    return java


def test_meteor_is_started_once_and_scores_come_in_the_captions_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    answer = 'case "$line" in S*) echo "of $line";; *) printf "1\\n2\\n1.5\\n";; esac'
    each = f'while read -r line; do echo "$line" >> {asked}; {answer}; done'
    stand_in(f"echo start >> {asked}; {each}", tmp_path, monkeypatch)
    assert captions._meteor(["a", "b"], [["x", "y"], ["z"]]) == (1.5, [1.0, 2.0])
    first, second = "SCORE ||| x ||| y ||| a", "SCORE ||| z ||| b"
    lines = ["start", first, second, f"EVAL ||| of {first} ||| of {second}"]
    assert asked.read_text().splitlines() == lines


@pytest.mark.parametrize(
    ("meteor", "reason"),
    [
        ("echo out of memory >&2; exit 1", "out of memory"),
        ("printf 'caf\\344\\n' >&2; exit 1", "caf"),
        ("echo warning >&2; while read line; do echo odd; done", "could not convert string"),
    ],
)
def test_a_meteor_that_fails_is_one_line(
    meteor: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = stand_in(meteor, tmp_path, monkeypatch)
    with pytest.raises(FcitError, match=f"METEOR failed under {java}: {reason}"):
        score("Flickr30k", ["a dog"] * 3, samples("Flickr30k", *[("a dog",)] * 3), "reference")


@pytest.mark.filterwarnings("ignore")  # pycocoevalcap leaves its pipes open
@pytest.mark.skipif(not shutil.which("java"), reason="needs Java")
def test_reference_captions_are_pycocoevalcaps_own():
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    said = ["A dog (brown) isn't running, is it?", "", "Two cats sleep on the café's mat."]
    answers = [("A brown dog runs.", "The dog is running!"), ("A man.",), ("Two cats are asleep.",)]
    found = score("Flickr30k", said, samples("Flickr30k", *answers), "reference")
    tokenizer = PTBTokenizer()
    result = tokenizer.tokenize({at: [{"caption": one}] for at, one in enumerate(said)})
    truth = tokenizer.tokenize(
        {at: [{"caption": one} for one in many] for at, many in enumerate(answers)}
    )
    bleus, _ = Bleu(4).compute_score(truth, result, verbose=0)
    others = [kind.compute_score(truth, result)[0] for kind in (Meteor(), Rouge(), Cider())]
    assert found.percent == pytest.approx(100 * (sum(bleus) + sum(others)) / 7)
    assert found.each[1] == pytest.approx(0, abs=1e-3)
    assert found.each[0] > 10


@pytest.mark.parametrize("mode", ["strict", "reference"])
def test_predictions_must_match_samples(mode):
    truths = samples("DVQA", "1", "2")
    with pytest.raises(FcitError, match="1 predictions for 2 samples"):
        score("DVQA", ["1"], truths, mode)
    with pytest.raises(FcitError, match="no samples to score"):
        score("DVQA", [], [], mode)


def test_duplicate_ids_are_an_error_in_strict_only():
    twice = samples("DVQA", "1")[:1] * 2
    with pytest.raises(FcitError, match="2 samples have the id '0'"):
        score("DVQA", ["1", "1"], twice, "strict")
    assert score("DVQA", ["1", "2"], twice, "reference").percent == 50


def test_unknown_modes_are_refused():
    with pytest.raises(FcitError, match="evaluation.scoring: 'loose'"):
        score("DVQA", ["1"], samples("DVQA", "1"), "loose")  # type: ignore[arg-type]


def test_chance_is_the_best_constant_training_answer():
    train = samples("IconQA", "two", "Three", "four", "four")
    test = samples("IconQA", "three", "three.", "four", "five", "five", "five")
    assert chance("IconQA", train, test, "strict") == pytest.approx(100 * 2 / 6)
    assert chance("IconQA", train, test, "reference") == pytest.approx(100 / 6)
    assert chance("IconQA", samples("IconQA", "x"), test, "strict") == 0


def test_chance_of_containment_counts_parts_in_reference_mode():
    train, test = samples("DVQA", "1", "12"), samples("DVQA", "12", "21", "12", "3")
    assert chance("DVQA", train, test, "reference") == 75  # "1" is part of three truths
    assert chance("DVQA", train, test, "strict") == 50


def test_chance_of_boxes():
    train = samples("Grounding", "[0.0,0.0,0.2,0.2]", "[0.0,0.0,1.0,1.0]", "junk")
    test = samples(
        "Grounding", "[0,0,0.9,0.9]", "[0,0,0.8,0.8]", "[0.5,0.5,0.6,0.6]", "[0,0,.2,.2]"
    )
    assert chance("Grounding", train, test, "strict") == 50
    # the closing 1.0 is read as 1., so nothing changes
    assert chance("Grounding", train, test, "reference") == 50
    assert chance("Grounding", samples("Grounding", "junk"), test, "strict") == 0


def test_answers_of_later_turns_are_training_answers_too():
    (first,), test = samples("Grounding", "a dog"), samples("Grounding", "[0.0,0.0,1.0,1.0]")
    turns = replace(first, more=(("Where is it?", "[0.0,0.0,0.9,0.9]"),))
    assert chance("Grounding", [turns], test, "strict") == 100


def test_an_inverted_box_of_reference_reading_hits_nothing():
    """The reference reads "[0.0,0.92,1.0,0.99]" as a box up to 0.9, whose area is negative."""
    train = samples("Grounding", "[0.0,0.0,1.0,1.0]", "[0.0,0.92,1.0,0.99]")
    test = samples("Grounding", *["[0.1,0.1,0.2,0.2]"] * 3, "[0,0,0.9,0.9]")
    assert chance("Grounding", train, test, "reference") == 25


def test_chance_of_captions_is_the_best_of_the_frequent_ones():
    train = samples("Flickr30k", "a dog runs", "a cat", "a dog runs", "nothing here")
    test = samples("Flickr30k", ("a dog runs", "the dog runs"), ("a dog runs fast",), ("a bird",))
    constants = [
        score("Flickr30k", [caption] * 3, test, "strict").percent
        for caption in ("a dog runs", "a cat", "nothing here")
    ]
    assert chance("Flickr30k", train, test, "strict") == pytest.approx(max(constants))
    assert max(constants) == constants[0] > constants[2]


def test_chance_of_captions_tries_only_the_most_frequent():
    often = [f"word{at} other{at}" for at in range(Caption.tries)] * 2
    train = samples("Flickr30k", "a dog runs", *often)
    test = samples("Flickr30k", ("a dog runs",), ("a dog runs",))
    assert chance("Flickr30k", train, test, "strict") < 1


def test_chance_needs_training_and_test_samples():
    with pytest.raises(FcitError, match="no training samples"):
        chance("DVQA", [], samples("DVQA", "1"), "strict")
    with pytest.raises(FcitError, match="no samples to score"):
        chance("DVQA", samples("DVQA", "1"), [], "strict")


@pytest.mark.parametrize("name", DATASETS)
def test_mini_suites_truths_score_full_marks(suite, name):
    test = read(suite, name, "test")
    right = score(name, [sample.answers[0] for sample in test], test, "strict")
    assert right.percent == pytest.approx(100)
    assert 0 <= chance(name, read(suite, name, "train"), test, "strict") < 100
