"""`fcit why` on a run folder written by hand: two stages, two subspaces, two misrouted questions."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fcit
import handmade
from fcit.cli import app
from fcit.files import read_lines, write_json, write_lines
from fcit.methods.disco import Disco
from fcit.recipe import config as configs
from fcit.rounds.runfolder import RunFolder
from fcit.rounds.server import Position
from fcit.types import FcitError, State
from fcit.use.why import Trainers, _gate, why, write_page


def prediction(id: str, text: str, share: float, cosines: tuple[float, float]) -> dict:
    return {
        "question_id": id,
        "image": f"IconQA/test/{id}.png",
        "prompt": "How many icons?\nAnswer <b>briefly</b>.",
        "prediction": text,
        "truth": "4",
        "score": 100.0 if text == "4" else 0.0,
        "activation": {"0": share, "1": 1 - share},
        "similarity": dict(zip("01", cosines, strict=True)),
    }


def written(folder: Path, table: dict, root: Path, method: str = "disco") -> Path:
    """A run of IconQA (subspace 0, clients 0, 1 and 3) and then FigureQA (subspace 1, client 2)."""
    table = copy.deepcopy(table) | {"data": {"root": str(root)}, "method": {"name": method}}
    folder.mkdir()
    configs.write(folder / "config.toml", configs.to_table(configs.validate(table)))
    turns = [(1, 1, [0, 1]), (1, 2, [0, 3]), (2, 1, [2]), (2, 2, [2])]
    rows = [
        handmade.line(*turn, ("IconQA", "FigureQA")[turn[0] - 1], str(turn[0] - 1))
        for turn in turns
    ]
    write_lines(folder / "log.jsonl", rows)
    RunFolder(folder).commit(State({}, {}), Position(1, 2, True))
    matrix = {
        "setting": "task-hom", "method": method, "scoring": "strict", "beta": 1.0, "seed": 3,
        "datasets": ["IconQA", "FigureQA"], "stages": ["IconQA", "FigureQA"],
        "matrix": [[50.0, None], [50.0, 50.0]], "last": 50.0, "avg": 50.0,
    }  # fmt: skip
    write_json(folder / "matrix.json", matrix)
    kept = RunFolder(folder)
    rows = [
        prediction("a", "4", 0.9, (0.95, 0.8)),
        prediction("b", "5", 0.25, (0.81, 0.9)),
        prediction("c", "4", 0.4, (0.85, 0.86)),
    ]
    write_lines(kept.predictions("2", "IconQA"), rows)
    write_lines(kept.predictions("1", "IconQA"), [rows[0] | {"activation": {"0": 1.0}}])
    write_lines(kept.predictions("1", "FigureQA"), [rows[0] | {"activation": {"0": 1.0}}])
    return folder


@pytest.fixture(scope="module")
def run(table: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "datasets" / "IconQA" / "test").mkdir(parents=True)
    handmade.picture(root / "datasets" / "IconQA" / "test" / "b.png")
    return written(tmp_path_factory.mktemp("why") / "run", table, root)


def told(*words: str | Path) -> str:
    """What the command line prints."""
    done = CliRunner().invoke(app, ["why", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_all_questions_of_a_foreign_subspace_are_explained(run: Path) -> None:
    found = why(fcit.load(run), "IconQA")
    assert (found.stage, found.asked, found.misrouted, found.recorded) == (2, 3, 2, True)
    assert [question.id for question in found.questions] == ["b", "c"]
    assert found.gate.endswith("Share: the softmax of the cosines over the temperature 0.05.")
    wrong = found.questions[0]
    assert (wrong.right, wrong.misrouted, wrong.truth) == (False, True, ("4",))
    assert [(one.subspace, one.share, one.cosine) for one in wrong.factors] == [
        ("1", 0.75, 0.9), ("0", 0.25, 0.81),
    ]  # fmt: skip
    assert Path(wrong.image).is_file()
    own, other = found.subspaces
    assert own.trained == (Trainers("IconQA", (0, 1, 3), ((1, 1), (1, 2))),)
    assert (own.own, own.questions, own.score) == (True, 1, 100.0)
    assert (other.own, other.questions, other.score) == (False, 2, 50.0)
    assert str(own.trained[0]) == "IconQA by clients 0-1, 3 (stage 1, rounds 1-2)"
    alone = Trainers("IconQA", (4,), ((1, 1), (2, 1), (2, 3)))
    assert str(alone) == "IconQA by client 4 (stage 1, round 1; stage 2, rounds 1, 3)"


def test_a_run_is_explained_and_shown_after_a_change_of_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    near = fcit.load(run.name)
    monkeypatch.chdir(tmp_path)
    assert why(near, "IconQA") == replace(why(fcit.load(run), "IconQA"), run=run.name)
    with pytest.raises(FcitError, match=f"^{run.name}: no predictions of FigureQA"):
        why(near, "FigureQA")


@pytest.mark.parametrize(
    ("gate", "share"),
    [
        ("softmax", "the softmax of the scores."),
        ("argmax", "1 for the largest score."),
        ("concat", "1 for every subspace."),
    ],
)
def test_scores_of_a_discriminant_analysis_are_called_so(gate: str, share: str) -> None:
    said = _gate(Disco(router="discriminant", gate=gate))  # type: ignore[arg-type]
    assert said == f"Cosine: here the score of the question's text feature. Share: {share}"


def test_one_question_is_explained_however_it_was_routed(run: Path) -> None:
    (question,) = why(fcit.load(run), "IconQA", id="a").questions
    assert (question.right, question.misrouted, question.factors[0].subspace) == (True, False, "0")


def test_an_earlier_stage_knows_no_later_rounds(run: Path) -> None:
    first = why(fcit.load(run), "IconQA", stage=1)
    assert (first.asked, first.misrouted, len(first.subspaces)) == (1, 0, 1)
    ahead = why(fcit.load(run), "FigureQA", stage=1)
    assert ahead.misrouted == 1
    assert "No client had trained on FigureQA" in ahead.verdict


def test_what_cannot_be_explained_is_refused_in_one_line(
    run: Path, table: dict, tmp_path: Path
) -> None:
    loaded = fcit.load(run)
    for said, words in (
        ("Nothing: not in this run; choose from IconQA, FigureQA", {"dataset": "Nothing"}),
        ("no question 'z' after stage 2; ids are a, b, c", {"dataset": "IconQA", "id": "z"}),
        ("after stage 7; there are some after stage 1, 2", {"dataset": "IconQA", "stage": 7}),
        ("no predictions of FigureQA after stage 2", {"dataset": "FigureQA"}),
    ):
        with pytest.raises(FcitError, match=said):
            why(loaded, **words)
    kept = RunFolder(written(tmp_path / "early", table, tmp_path))
    rows = read_lines(kept.predictions("1", "IconQA"))
    write_lines(kept.predictions("1", "IconQA"), [row | {"activation": {}} for row in rows])
    with pytest.raises(FcitError, match="no subspace had been trained by the end of stage 1"):
        why(fcit.load(kept.path), "IconQA", stage=1)
    plain = written(tmp_path / "plain", table, tmp_path, "finetune")
    with pytest.raises(FcitError, match="finetune does not route questions by identity tokens"):
        why(fcit.load(plain), "IconQA")
    done = CliRunner().invoke(app, ["why", str(run), "IconQA", "--id", "a", "--wrong"])
    assert "one of the two" in str(done.exception)


def test_runs_without_cosines_say_so(run: Path, table: dict, tmp_path: Path) -> None:
    old = written(tmp_path / "old", table, tmp_path)
    file = old / "predictions" / "2" / "IconQA.jsonl"
    rows = read_lines(file)
    for row in rows:
        del row["similarity"]
    write_lines(file, rows)
    found = why(fcit.load(old), "IconQA")
    assert not found.recorded
    assert found.questions[0].factors[0].cosine is None
    assert "Cosines were not recorded" in told(old, "IconQA", "--wrong")
    assert "Cosines were not recorded" not in told(run, "IconQA", "--wrong")


def test_the_table_is_a_summary_until_questions_are_asked_for(run: Path) -> None:
    summary = told(run, "IconQA")
    assert "2 of 3 questions went to a subspace that no client trained on IconQA" in summary
    assert "IconQA by clients 0-1, 3 (stage 1, rounds 1-2)" in summary
    assert "prompt" not in summary
    assert "0.8100" in told(run, "IconQA", "--wrong")
    assert "0.9500" in told(run, "IconQA", "--id", "a")
    short = told(run, "IconQA", "--wrong", "--limit", "1")
    assert "1 more questions are not shown" in short
    assert "0.8600" not in short
    found = json.loads(told(run, "IconQA", "--json"))
    assert [question["id"] for question in found["questions"]] == ["b", "c"]


def test_wrong_answers_are_named_and_a_star_is_explained_where_there_is_one(
    run: Path, tmp_path: Path
) -> None:
    text = told(run, "IconQA")
    assert "wrong answers: b. --id ID explains a question.\n--wrong explains those that" in text
    assert "* trained on IconQA. 2 of 3 questions went" in text
    early = told(run, "FigureQA", "--stage", "1", "--html", tmp_path / "page.html")
    assert "No client had trained on FigureQA" in early and "* trained" not in early
    assert "wrong answers: none. " in early
    one = told(run, "IconQA", "--id", "a")
    assert "question a, routed to one trained on its dataset" in one and "wrong answers" not in one


def test_the_page_holds_the_images_and_escapes_what_others_wrote(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "why.html"
    told(run, "IconQA", "--html", page)
    text = page.read_text()
    assert text.count('<section class="card">') == 2
    assert text.count("data:image/png;base64,") == 1
    assert "image not found" in text
    assert "&lt;b&gt;briefly&lt;/b&gt;" in text
    assert "<b>" not in text
    write_page(why(fcit.load(run), "IconQA"), page, limit=1)
    assert "1 more questions are not shown" in page.read_text()
