"""Datasets with a dataset.toml, and with a scoring rule from a file of one's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from fcit.benchmark import datasets, missing, rules
from fcit.benchmark.check import check
from fcit.benchmark.predictions import score
from fcit.benchmark.rules.caption import Caption
from fcit.benchmark.rules.containment import Containment
from fcit.benchmark.rules.exact import Exact
from fcit.benchmark.stats import collect
from fcit.cli import app
from fcit.recipe import config
from fcit.recipe.sections import DataSection
from fcit.types import FcitError
from fcit.worker.experiment import Experiment

NEAR = """
from __future__ import annotations

from typing import Any

from fcit.benchmark.records import RecordError
from fcit.benchmark.rules import Mode, Rule


class Near(Rule):
    def truth(self, record: dict[str, Any]) -> str:
        text = super().truth(record)
        if not text.replace(".", "").isdigit():
            raise RecordError(f"answer: {text!r} is no number")
        return text

    def right(self, answer: str, truth: str, mode: Mode) -> bool:
        try:
            given = float(answer)
        except ValueError:
            return False
        return abs(given - float(truth)) <= 0.05 * float(truth)
"""
READINGS = ["10", "10", "10.4", "9.8", "10.2", "50", "70"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder with the dataset My-Meters, and the file near.py beside it."""
    root = tmp_path / "data"
    folder = root / "instructions" / "My-Meters"
    folder.mkdir(parents=True)
    (root / "datasets").mkdir()
    for name, shade in (("a", 10), ("b", 200)):
        Image.new("L", (8, 8), shade).save(root / "datasets" / f"{name}.png")
    turns = [{"from": "human", "value": "Read it."}, {"from": "gpt", "value": "10"}]
    train = [{"id": 1, "image": "a.png", "conversations": turns}]
    test = [
        {"question_id": at, "image": "b.png", "text": "Read it.", "answer": reading}
        for at, reading in enumerate(READINGS)
    ]
    (folder / "train.json").write_text(json.dumps(train))
    (folder / "test.json").write_text(json.dumps(test))
    (tmp_path / "near.py").write_text(NEAR)
    return root


def tell(root: Path, text: str) -> Path:
    path = root / "instructions" / "My-Meters" / "dataset.toml"
    path.write_text(text)
    return path


# -- dataset.toml ------------------------------------------------------------------------------------


def test_a_dataset_file_says_what_differs(root):
    tell(root, 'train = "t.json"\nrule = "containment"\nimages = "./plants/"\n')
    found = datasets.find("My-Meters", root)
    assert (found.train_file, found.test_file, found.images) == ("t.json", "test.json", "plants")
    assert found.rule == Containment()
    tell(root, 'rule = "caption"\ncaptions = "coco.json"')
    assert datasets.find("My-Meters", root).rule == Caption("coco.json")
    assert missing.missing(root, [datasets.find("My-Meters", root)]) == {
        "My-Meters": ["instructions/My-Meters/coco.json"]
    }
    assert datasets.find("My-Meters").rule == Exact(), "without a data folder"


def test_a_benchmarks_dataset_may_have_other_files_too(root):
    folder = root / "instructions" / "OCRVQA"
    folder.mkdir()
    (folder / "dataset.toml").write_text('train = "train.json"')
    found = datasets.find("OCR-VQA", root)
    assert (found.train_file, found.test_file, found.images) == (
        "train.json", "test_1w.json", "OCR-VQA",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"x: unknown key; there are benchmark, train, test, rule, captions, images"),
        ("train = 1", "train: must be text"),
        ('train = "../a.json"', "train: '../a.json' is no name of a file"),
        ('test = ""', "test: '' is no name of a file"),
        (
            'rule = "near.py"',
            "rule: there is no 'near.py'; choose from box, .*; a rule of your own is",
        ),
        ('rule = "caption"', 'captions: belongs to rule = "caption", which needs it'),
        ('captions = "a.json"', 'captions: belongs to rule = "caption"'),
        ('images = "../up"', "images: '../up' leaves datasets/"),
        ("rule =", "not valid TOML"),
    ],
)
def test_a_malformed_dataset_file_is_named_with_its_key(root, text, message):
    path = tell(root, text)
    with pytest.raises(FcitError, match=message) as error:
        datasets.find("My-Meters", root)
    assert str(error.value).startswith(f"{path}: ")
    (problem,) = check(root).problems
    assert problem.file == "instructions/My-Meters/dataset.toml"


# -- a rule of one's own -----------------------------------------------------------------------------


def test_chance_is_the_rules_own(root, tmp_path):
    near = rules.load({"My-Meters": str(tmp_path / "near.py")})
    (mine,) = collect(root, "strict", rules=near)
    assert mine.chance == pytest.approx(100 * 5 / 7)
    (exact,) = collect(root, "strict")
    assert exact.chance == pytest.approx(100 * 2 / 7)


def test_a_rule_may_score_all_answers_together(root, tmp_path):
    (tmp_path / "set.py").write_text("""
from fcit.benchmark.rules import Accuracy, Rule


class Matched(Rule):
    def score(self, answers, truths, mode):
        each = [100.0 * (a == truth) for a, (truth, *_) in zip(answers, truths)]
        return Accuracy(sum(each) / len(each), each)
""")
    own = rules.load({"My-Meters": str(tmp_path / "set.py")})
    assert check(root, rules=own).problems == []
    (mine,) = collect(root, "strict", rules=own)
    assert mine.chance == pytest.approx(100 * 2 / 7)


def test_a_check_demands_what_the_rule_does(root, tmp_path):
    near = rules.load({"My-Meters": str(tmp_path / "near.py")})
    assert check(root, rules=near).problems == []
    path = root / "instructions" / "My-Meters" / "test.json"
    path.write_text(path.read_text().replace('"70"', '"many"'))
    (problem,) = check(root, rules=near).problems
    assert (problem.record, problem.what) == ("record 7", "answer: 'many' is no number")
    assert check(root).problems == []


def test_predictions_are_scored_by_it(root, tmp_path):
    given = tmp_path / "given.jsonl"
    given.write_text("".join(f'{{"question_id": {at}, "text": "10.1"}}\n' for at in range(7)))
    truth = root / "instructions" / "My-Meters" / "test.json"
    near = rules.load({"My-Meters": str(tmp_path / "near.py")})
    assert score("My-Meters", truth, given, "strict", near).score == pytest.approx(500 / 7)
    asked = ["score", "--dataset", "My-Meters", "--truth", str(truth), "--predictions", str(given)]
    done = CliRunner().invoke(app, [*asked, "--rule", str(tmp_path / "near.py")])
    assert done.output.startswith("My-Meters: 71.43 %"), done.output
    assert "(rule near.py, strict scoring" in done.output
    named = CliRunner().invoke(app, [*asked, "--rule", f"My-Meters={tmp_path / 'near.py'}"])
    assert named.output == done.output
    other = CliRunner().invoke(app, [*asked, "--rule", f"My-Meter={tmp_path / 'near.py'}"])
    assert "--rule: names the dataset 'My-Meter'" in str(other.exception)
    checked = ["data", "check", str(root), "--rule"]
    done = CliRunner().invoke(app, [*checked, f"My-Meters={tmp_path / 'near.py'}"])
    assert done.exit_code == 0, done.output
    assert "My-Meters: 1 train, 7 test, rule near.py\n" in done.output
    for command in (checked, ["data", "stats", "--no-tokens", "--root", str(root), "--rule"]):
        done = CliRunner().invoke(app, [*command, f"My-Meter={tmp_path / 'near.py'}"])
        assert str(done.exception) == f"--rule: {root} has no dataset 'My-Meter'; it has My-Meters"
    with pytest.raises(
        FcitError, match=r'exact: no such .*; in dataset\.toml, rule = "exact" names'
    ):
        rules.load({"My-Meters": "exact"})
    tell(root, "rule =")
    done = CliRunner().invoke(app, checked[:-1])
    assert "My-Meters: not read\n" in done.output


def test_a_recipe_names_its_file_relative_to_itself_and_workers_find_it(root, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[data]\nroot = "data"\n[data.rules]\nMy-Meters = "near.py"\n'
        '[setting]\nname = "task-hom"\norder = ["My-Meters"]\n'
        "[federation]\nclients = 1\nper_round = 1\n"
    )
    sent = json.loads(json.dumps(config.to_table(config.load(recipe))))  # as a worker gets it
    experiment = Experiment(config.validate(sent))
    dataset = experiment.dataset("My-Meters")
    samples = experiment.samples("My-Meters", "test")
    assert dataset.score(["10"] * 7, samples, "strict").each == [100] * 5 + [0] * 2
    changed = config.load(recipe, ["data.rules.My-Meters=gone.py"])
    with pytest.raises(FcitError, match=r"data\.rules: My-Meters: .*gone\.py: no such Python file"):
        Experiment(changed).dataset("My-Meters")
    with pytest.raises(FcitError, match=r"data\.rules: .*no dataset 'My-Meter'; it has My-Meters"):
        Experiment(config.load(recipe, ["data.rules.My-Meter=near.py"])).dataset("My-Meters")


def test_a_client_never_runs_what_the_servers_recipe_names(root, tmp_path):
    (tmp_path / "near.py").write_text("raise SystemExit('was run')")
    table = {
        "data": {"root": "/elsewhere", "rules": {"My-Meters": str(tmp_path / "near.py")}},
        "setting": {"name": "task-hom", "order": ["My-Meters"]},
        "federation": {"clients": 1, "per_round": 1},
        "evaluation": {"where": "clients"},
    }
    own = DataSection(root=str(root))
    with pytest.raises(FcitError, match='--node-config: rules="My-Meters='):
        Experiment(config.validate(table), own).dataset("My-Meters")
    (tmp_path / "mine.py").write_text(NEAR)
    ruled = replace(own, rules={"My-Meters": str(tmp_path / "mine.py")})
    client = Experiment(config.validate(table), ruled)
    assert client.dataset("My-Meters").rule.right("10", "10.4", "strict")
    table["evaluation"] = {"where": "server"}
    assert Experiment(config.validate(table), own).dataset("My-Meters").rule == Exact()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "must define one subclass of Rule, not 0"),
        (
            NEAR + NEAR.replace("Near", "Far").replace("from __future__", "# "),
            "one subclass of Rule, not 2",
        ),
        (
            "from fcit.benchmark.rules import Rule\nclass A(Rule): pass",
            r"A must define right\(self",
        ),
        ("import nothing_of_this_name", "cannot be used: ModuleNotFoundError"),
        ("1 +", "cannot be used: SyntaxError"),
    ],
)
def test_a_file_that_is_no_rule_is_one_line(tmp_path, source, message):
    (tmp_path / "rule.py").write_text(source)
    with pytest.raises(FcitError, match=message) as error:
        rules.load({"A": str(tmp_path / "rule.py")})
    assert str(error.value).startswith(f"data.rules: A: {tmp_path / 'rule.py'}: ")


def test_a_rule_may_give_shares_but_no_more_than_all(tmp_path):
    (tmp_path / "rule.py").write_text(
        "from fcit.benchmark.rules import Rule\n"
        "class A(Rule):\n"
        "    def right(self, answer, truth, mode):\n"
        "        return float(answer)\n"
    )
    rule = rules.load({"A": str(tmp_path / "rule.py")})["A"]
    assert rule.score(["0.5", "1"], [("x",), ("x",)], "strict").percent == 75
    for answer in ("1.5", "-1", "nan"):
        with pytest.raises(
            FcitError,
            match=rf"A\.right\('{answer}', 'x', 'strict'\) must return .* 0 to 1, not {answer}",
        ):
            rule.score([answer], [("x",)], "strict")


def ruled(folder: Path, body: str) -> rules.Rule:
    """A rule of one's own with this body, in a file odd.py."""
    text = "from fcit.benchmark.rules import Rule\nclass Odd(Rule):\n"
    text += "    def right(self, answer, truth, mode): return answer == truth\n"
    (folder / "odd.py").write_text(text + body)
    return rules.load({"My-Meters": str(folder / "odd.py")})["My-Meters"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "    def truth(self, record): return record['reading']",
            "odd.py, line 4: Odd.truth raised KeyError: 'reading'; "
            'raise RecordError("answer: ...") for a truth that the rule cannot read',
        ),
        ("    def truth(self, record): return 5", "odd.py: Odd.truth must return text, not 5"),
        (
            "    def right(self, answer, truth, mode): return float(answer) == 1",
            "odd.py, line 4: Odd.right('', '10', 'strict') raised ValueError: could not convert "
            "string to float: ''; return False for an answer that cannot be read",
        ),
        (
            "    def score(self, answers, truths, mode): return 1",
            "odd.py: Odd.score must return an Accuracy, not 1",
        ),
    ],
)
def test_whatever_a_rule_raises_or_returns_is_one_line(root, monkeypatch, body, message):
    monkeypatch.chdir(root.parent)
    problem = check(root, rules={"My-Meters": ruled(Path(), body)}).problems[0]
    assert problem.file == "instructions/My-Meters/test.json"
    of_record = "truth" in message
    assert problem.record.startswith("record 1" if of_record else "") and problem.what == message
    assert bool(problem.record) == of_record  # what the rule does wrong, no clean copy mends


def test_what_a_rule_raises_over_training_answers_is_one_line_too(root, tmp_path):
    odd = ruled(tmp_path, "    def check(self, answer): raise RuntimeError")
    (problem,) = check(root, rules={"My-Meters": odd}).problems
    assert problem.what.startswith("odd.py, line 4: Odd.check raised RuntimeError; raise Record")
    odd = ruled(tmp_path, "    def best_constant(self, answers, truths, mode): return 1 / 0")
    with pytest.raises(FcitError, match=r"odd\.py, line 4: Odd\.best_constant raised ZeroDiv"):
        collect(root, "strict", rules={"My-Meters": odd})
    (problem,) = check(root, rules={"My-Meters": odd}).problems
    assert problem.what.startswith("odd.py, line 4: Odd.best_constant raised ZeroDivisionError")
    odd = ruled(tmp_path, "    def best_constant(self, answers, truths, mode): return '?'")
    (problem,) = check(root, rules={"My-Meters": odd}).problems
    assert problem.what == "My-Meters: best_constant gave '?', which is no training answer"
