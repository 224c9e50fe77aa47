"""The mini suite's questions: paraphrases, format lines, even answers, text on the grid, captions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest

from fcit import suite as mini
from fcit.benchmark import captions
from fcit.benchmark.datasets import Split, find
from fcit.seeds import numpy_stream
from fcit.suite import charts, draw
from fcit.suite import drawn as drawing
from fcit.suite.draw import CELL
from fcit.suite.drawn import Drawn, Wordings
from fcit.types import Sample

LIKE = ("ImageNet-R", "IconQA", "CLEVR-Math", "OCR-VQA", "super-CLEVR")
FORMS = dict.fromkeys(LIKE, drawing.WORD) | {
    "ArxivQA": drawing.LETTER,
    "Flickr30k": drawing.CAPTION,
    "FigureQA": drawing.YES_NO,
    "A-OKVQA": drawing.ONE_WORD,
    "DVQA": drawing.WORD_OR_NUMBER,
    "TabMWP": drawing.NUMBER,
}


@cache
def some(name: str, split: Split, count: int = 400) -> list[Drawn]:
    return list(mini.draws(1, name, split, count))


def wordings(name: str) -> list[Wordings]:
    values = vars(mini.GENERATORS[name]).values()
    return [value for value in values if isinstance(value, Wordings)]


def forms(templates: Iterable[str]) -> re.Pattern[str]:
    """Matches what one of the templates, filled in somehow, gives."""
    return re.compile("|".join(re.sub(r"\\{\w+\\}", ".+", re.escape(one)) for one in templates))


def test_a_question_has_four_to_six_wordings_and_two_or_three_only_at_test():
    seen: set[str] = set()
    unseen: set[str] = set()
    for name in mini.GENERATORS:
        assert wordings(name)
        for one in wordings(name):
            assert 4 <= len(set(one.seen)) == len(one.seen) <= 6
            assert 2 <= len(set(one.unseen)) == len(one.unseen) <= 3
            seen |= set(one.seen)
            unseen |= set(one.unseen)
    assert not seen & unseen
    assert all(5 <= len(wording.split()) <= 18 for wording in seen | unseen)


@pytest.mark.parametrize("name", mini.GENERATORS)
def test_training_never_has_a_test_wording_and_a_third_of_the_test_prompts_do(name):
    new = forms(one for form in wordings(name) for one in form.unseen)
    for drawn in some(name, "train"):
        for prompt in (drawn.prompt, *(prompt for prompt, _ in drawn.more)):
            assert not new.fullmatch(prompt.split("\n")[0])
    asked = [drawn.prompt.split("\n")[0] for drawn in some(name, "test")]
    assert 0.2 < sum(bool(new.fullmatch(question)) for question in asked) / len(asked) < 0.47


@pytest.mark.parametrize("name", mini.GENERATORS)
def test_every_prompt_ends_with_its_format_line(name):
    for split in ("train", "test"):
        for drawn in some(name, split):
            *_, last = drawn.prompt.split("\n")
            if name == "Grounding":
                assert "bounding box coordinates" in last
            else:
                assert last == FORMS[name]
                assert drawn.prompt.count("\n") == (6 if name == "ArxivQA" else 1)


def test_look_alikes_share_their_questions():
    shared = {name: set(wordings(name)) for name in mini.GENERATORS}
    assert drawing.HOW_MANY in shared["CLEVR-Math"] & shared["super-CLEVR"] & shared["IconQA"]
    assert {drawing.TAKE_AWAY, drawing.ADD} < shared["CLEVR-Math"] & shared["IconQA"]


@pytest.mark.parametrize("name", mini.GENERATORS)
def test_no_constant_answer_is_worth_giving(name):
    samples = [
        [
            Sample(str(n), name, "", one.prompt, one.answers)
            for n, one in enumerate(some(name, split))
        ]
        for split in ("train", "test")
    ]
    bound = {"FigureQA": 56, "ArxivQA": 100 / 3, "Flickr30k": 25, "Grounding": 30}.get(name, 20)
    assert find(name).chance(*samples, "strict") < bound
    answers = Counter(drawn.answers[0] for drawn in some(name, "train"))
    expected = {"FigureQA": {"yes", "no"}, "ArxivQA": set("ABCD")}
    assert set(answers) == expected.get(name, set(answers))
    assert answers.most_common(1)[0][1] / 400 < bound / 100


def test_yes_and_no_are_even_whatever_is_named():
    counts = Counter(
        (colour, drawn.answers[0])
        for drawn in some("FigureQA", "train", 1500)
        for colour in draw.HUES
        if re.search(rf"\b{colour}\b", drawn.prompt)
    )
    for colour in draw.HUES:
        yes, no = counts[colour, "yes"], counts[colour, "no"]
        assert abs(yes - no) < 4 * np.sqrt(yes + no)


def test_yes_and_no_are_what_the_bars_show():
    kinds = Counter[str]()
    for drawn in some("FigureQA", "train", 300):
        heights = {
            colour: int((pixels(drawn) == draw.rgb(colour)).all(axis=2).any(axis=1).sum())
            for colour in draw.HUES
        }
        heights = {colour: high for colour, high in heights.items() if high}
        question = drawn.prompt.split("\n")[0]
        named = re.findall("|".join(draw.HUES), question)
        edge = re.search("(maximum|highest|largest)|(minimum|lowest|smallest)", question)
        if edge:
            ends = max(heights.values()) if edge[1] else min(heights.values())
            right, kind = heights[named[0]] == ends, "edge"
            assert list(heights.values()).count(ends) == 1
        elif named:
            right, kind = named[0] in heights, "present"
        else:
            right, kind = int(re.findall(r"\d", question)[0]) == len(heights), "number"
        assert drawn.answers[0] == ("yes" if right else "no"), question
        kinds[kind] += 1
    assert min(kinds[kind] for kind in ("edge", "present", "number")) > 60


def pixels(drawn: Drawn) -> np.ndarray:
    return np.asarray(drawn.image)


def test_the_two_chart_datasets_draw_from_one_distribution():
    for index in range(20):
        image, bars = charts.chart(numpy_stream(0, "charts", index))
        for name in ("FigureQA", "DVQA"):
            drawn = mini.GENERATORS[name].sample(numpy_stream(0, "charts", index), "train")
            assert drawn.image.tobytes() == image.tobytes()
        ranked = sorted(bar.value for bar in bars)
        assert 1 <= ranked[0] <= ranked[1] - charts.APART and ranked[-1] <= charts.MOST
        assert ranked[-1] - ranked[-2] >= charts.APART


def test_text_stands_on_the_grid(monkeypatch):
    written: list[str] = []
    text = draw.text

    def spy(image, at, words, *colour):
        assert at[0] % CELL == at[1] % CELL == 0
        assert at[0] >= 0 <= at[1] <= draw.SIZE - CELL
        assert at[0] + CELL * len(words) <= draw.SIZE
        assert words == words.upper()
        written.append(words)
        return text(image, at, words, *colour)

    monkeypatch.setattr(draw, "text", spy)
    for name in ("OCR-VQA", "TabMWP", "DVQA"):
        for drawn in mini.draws(2, name, "train", 60):
            answer = drawn.answers[0]
            assert answer in written or not answer.isupper()
            named = re.findall(r"\b[A-Z]{3}\b", drawn.prompt)
            assert set(named) <= set(written)
            assert bool(named) == (name == "TabMWP")
    assert len(set(written)) > 300


def test_words_of_one_table_begin_differently(monkeypatch):
    seen: list[str] = []
    monkeypatch.setattr(draw, "text", lambda image, at, words, *_: seen.append(words))
    for index in range(50):
        seen.clear()
        mini.GENERATORS["TabMWP"].sample(numpy_stream(0, "tables", index), "train")
        firsts = [words[0] for words in seen if words.isalpha()]
        assert len(set(firsts)) == len(firsts) == len(seen) / 2


def test_numbers_stay_small_and_about_even():
    for name, most in (("CLEVR-Math", 7), ("TabMWP", 12), ("IconQA", 7), ("super-CLEVR", 4)):
        answers = (drawn.answers[0] for drawn in some(name, "train"))
        numbers = Counter(int(answer) for answer in answers if answer.isdigit())
        assert min(numbers) >= 0 and max(numbers) == most
        if name in ("CLEVR-Math", "super-CLEVR"):
            assert max(numbers.values()) < 2 * min(numbers.values())


def test_letters_name_one_of_four_options():
    for drawn in some("ArxivQA", "train"):
        lines = drawn.prompt.split("\n")
        assert [line[:3] for line in lines[2:6]] == ["A) ", "B) ", "C) ", "D) "]
        options = [line[3:] for line in lines[2:6]]
        assert len(set(options)) == 4
        assert all(1 <= len(option.split()) <= 2 for option in options)


def test_subtraction_leaves_the_objects_of_the_other_group():
    """The pixels agree with the answer: taking all of a colour away leaves the other colour."""
    taking, checked = forms(drawing.TAKE_AWAY.seen), 0
    for drawn in some("CLEVR-Math", "train"):
        if not taking.fullmatch(drawn.prompt.split("\n")[0]):
            continue
        shown = [hue for hue in draw.HUES if (pixels(drawn) == draw.rgb(hue)).all(axis=2).any()]
        assert len(shown) == (1 if drawn.answers[0] == "0" else 2)
        checked += 1
    assert checked > 20


def test_things_to_count_are_large_and_never_touch():
    for count, cell in ((1, 16), (6, 16), (9, 16), (8, 12), (16, 12)):
        spots = drawing.spots(numpy_stream(0, "spots", count), count, cell)
        covered = np.zeros((draw.SIZE + 1, draw.SIZE + 1), dtype=int)
        for (x, y), size in spots:
            assert size >= 11 and x + size <= draw.SIZE and y + size <= draw.SIZE
            covered[y : y + size + 1, x : x + size + 1] += 1  # with the pixel that stays free
        assert covered.max() == 1 and len(spots) == count


def test_a_right_caption_scores_high_though_its_words_may_differ():
    truths = [drawn.answers for drawn in some("Flickr30k", "test", 100)]
    percent, _ = captions.evaluate([one[0] for one in truths], [one[1:] for one in truths], False)
    assert percent > 80
