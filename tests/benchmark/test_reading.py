"""What of an answer is scored."""

from __future__ import annotations

import copy

import pytest

from fcit.benchmark.reading import most_stops, read_answer, read_truth
from fcit.recipe.config import validate
from fcit.types import Sample
from fcit.worker.experiment import Experiment


@pytest.mark.parametrize(
    ("answer", "first_line", "short"),
    [
        ("red", "red", "red"),
        ("\n Red.\nIt is red.", "Red.", "Red."),
        ("A zebra.", "A zebra.", "zebra."),
        (
            "The answer is: the Hague. It is a city.",
            "The answer is: the Hague. It is a city.",
            "Hague.",
        ),
        ("The picture shows an apple", "The picture shows an apple", "apple"),
        ("This is 7.", "This is 7.", "7."),
        ("A", "A", "A"),  # an option's letter, no article
        ("A. a cat", "A. a cat", "A."),
        ("Answer 3.5 is right", "Answer 3.5 is right", "Answer 3.5 is right"),
        ("", "", ""),
    ],
)
def test_readings(answer: str, first_line: str, short: str) -> None:
    assert read_answer(answer, "whole") == answer
    assert read_answer(answer, "first line") == first_line
    assert read_answer(answer, "short") == short


def test_a_truth_with_stops_is_compared_whole() -> None:
    for truth, right, wrong in (
        ("J. K. Rowling", "The answer is J. K. Rowling", "J. Smith"),
        ("Dr. Seuss", "Dr. Seuss. He wrote it.", "Dr. Who"),
        ("The Hague", "the Hague. It is a city.", "Paris. It is a city."),
        ("a. b.", "a. b. c.", "a."),
    ):
        read = read_truth(truth)
        assert read_answer(right, "short", most_stops([truth])).removesuffix(
            "."
        ) == read.removesuffix("."), right
        assert read_answer(wrong, "short", most_stops([truth])).removesuffix(
            "."
        ) != read.removesuffix("."), wrong


def test_the_best_constant_is_read_as_if_a_model_had_said_it(table: dict, monkeypatch) -> None:
    changed = copy.deepcopy(table)
    changed["evaluation"]["reading"] = "short"
    experiment = Experiment(validate(changed))
    train = [Sample("1", "FigureQA", "a.png", "?", ("Yes. Because it is red.",))]
    test = [Sample("2", "FigureQA", "a.png", "?", ("Yes\nbecause it is red",))]
    monkeypatch.setattr(
        experiment, "samples", lambda name, split: {"train": train, "test": test}[split]
    )
    assert experiment.chance("FigureQA") == 100
    assert experiment.score("FigureQA", ["yes. It is"], test).percent == 100


@pytest.mark.parametrize(
    ("reading", "taught", "truths", "chance"),
    [
        ("short", "Yes. It is red.", ["Yes"] * 9 + ["J. K. Rowling"], 90),
        ("first line", "A\nBecause it is red.", ["A"], 100),
        ("first line", "A\nred", ["A\nred"], 0),
        ("whole", "A\nred", ["A\nred"], 100),
    ],
)
def test_chance_is_the_score_of_that_answer(
    table: dict, monkeypatch, reading: str, taught: str, truths: list[str], chance: float
) -> None:
    changed = copy.deepcopy(table)
    changed["evaluation"]["reading"] = reading
    experiment = Experiment(validate(changed))
    train = [Sample("1", "FigureQA", "a.png", "?", (taught,))]
    test = [Sample(f"{at}", "FigureQA", "a.png", "?", (text,)) for at, text in enumerate(truths)]
    monkeypatch.setattr(
        experiment, "samples", lambda name, split: {"train": train, "test": test}[split]
    )
    said = experiment.score("FigureQA", [taught] * len(test), test).percent
    assert experiment.chance("FigureQA") == said == chance


def test_a_recipe_says_what_is_scored(table: dict) -> None:
    def percent(reading: str, answer: str) -> float:
        changed = copy.deepcopy(table)
        changed["evaluation"]["reading"] = reading
        experiment = Experiment(validate(changed))
        samples = experiment.samples("FigureQA", "test")[:1]
        return experiment.score("FigureQA", [answer.format(samples[0].answers[0])], samples).percent

    assert percent("whole", "{}") == percent("short", "The answer is {}.\nReally.") == 100
    assert percent("whole", "The answer is {}.") == percent("first line", "The answer is {}.") == 0
    assert percent("first line", "{}\nReally.") == 100


def test_runs_that_read_answers_differently_are_not_compared(table: dict) -> None:
    changed = copy.deepcopy(table)
    assert validate(changed).evaluation.scored == "strict"
    changed["evaluation"]["reading"] = "short"
    assert validate(changed).evaluation.scored == "strict (short)"
