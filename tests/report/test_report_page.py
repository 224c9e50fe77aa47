"""A report says what the run folders say and needs nothing but itself."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import stdev

import pytest
from typer.testing import CliRunner

from fcit.cli import app
from fcit.files import read_json, write_json, write_lines, write_text
from fcit.report.examples import embedded_image, examples
from fcit.report.groups import group_runs
from fcit.report.page import write
from fcit.report.result_tables import setting_table, settings_csv
from fcit.report.results import run_results
from fcit.report.run_data import read_run, read_runs
from fcit.report.style import LOOKS
from fcit.report.tables import to_markdown

Build = Callable[..., Path]
FILES = ("table", "paper", "significance")
NASTY = 'dis<co> & "50%" \\_$#{x}~^|*'


def rows_of(runs: list[Path]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(settings_csv(group_runs(read_runs(runs))))))


def markdown(runs: list[Path]) -> str:
    return to_markdown([setting_table(group) for group in group_runs(read_runs(runs))])


@pytest.mark.parametrize(
    "other",
    [
        {"datasets": ("OCR-VQA", "FigureQA")},
        {"setting": "cap-het"},
        {"scoring": "reference"},
        {"done": 0},
        {"method": "zeroshot"},
    ],
    ids=str,
)
def test_runs_with_nothing_to_compare_make_a_page(
    other: dict, build: Build, undrawn: None, tmp_path: Path
) -> None:
    runs = [build("first"), build("second", **other)]
    assert write(runs, tmp_path / "out").is_file()
    assert len(rows_of(runs)) == 2


def test_page_says_where_a_row_was_computed_elsewhere(
    build: Build, undrawn: None, tmp_path: Path
) -> None:
    page = write([build("first", evaluated="float32 on cpu")], tmp_path / "out")
    assert "commit 0123abc · evaluated float32 on cpu</p>" in page.read_text(encoding="utf-8")


def test_page_stands_alone_and_everything_lies_beside_it(drawn: tuple[list[Path], Path]) -> None:
    page = drawn[1]
    assert (page.parent.name, page.name) == ("out", "index.html")
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|srcset|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", text)
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert "<script" not in text and "@import" not in text and "http:" not in text
    names = {"curves", "final", "forgetting", "accuracy-disco", "accuracy-finetune"}
    names |= {"tokens-disco", "activation-disco", "clients", "traffic"}
    for name in names:
        assert f'id="{name}"' in text
        png, svg = (page.parent / "figures" / f"{name}.{kind}" for kind in ("png", "svg"))
        assert png.read_bytes().startswith(b"\x89PNG") and png.stat().st_size > 5000
        assert "<path" in svg.read_text(encoding="utf-8")
    assert {file.stem for file in (page.parent / "figures").iterdir()} == names
    tables = [f"{name}.{kind}" for name in FILES for kind in ("md", "csv", "tex")]
    beside = {file.name for file in page.parent.iterdir()}
    assert beside == {"index.html", "figures", *tables}


def test_the_same_runs_give_the_same_bytes(drawn: tuple[list[Path], Path], tmp_path: Path) -> None:
    runs, folder = drawn[0], drawn[1].parent
    write(runs, tmp_path)
    files = [path.relative_to(folder) for path in folder.rglob("*.*")]
    assert len(files) > 10
    for file in files:
        assert (folder / file).read_bytes() == (tmp_path / file).read_bytes(), file


def test_page_of_two_runs_of_eight_stages_stays_small(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcit.report.style.save_png", lambda figure, path: None)  # not in the page
    names = [f"Dataset-{at}" for at in range(8)]
    page = write([build("d", datasets=names), build("f", "finetune", datasets=names)], tmp_path)
    assert page.stat().st_size < 3_000_000


@pytest.mark.usefixtures("undrawn")
def test_repeated_seeds_become_one_row_with_their_spread(build: Build, tmp_path: Path) -> None:
    runs = [build(f"d{seed}", "disco", seed, last=value) for seed, value in ((0, 50.0), (3, 54.0))]
    page = write(runs, tmp_path / "out").read_text(encoding="utf-8")
    (row,) = rows_of(runs)
    assert row["seeds"] == "0 3" and float(row["last"]) == 52.0
    assert float(row["last_sd"]) == pytest.approx(stdev([50.0, 54.0]), abs=1e-4)
    assert "52.00 ± 2.83" in page and "Mean over seeds 0, 3." in page and "Seed 0." in page


@pytest.mark.usefixtures("undrawn")
def test_sections_have_figures_of_their_own(build: Build, tmp_path: Path) -> None:
    runs = [build("one"), build("two", beta=0.5)]
    page = write(runs, tmp_path / "out").read_text(encoding="utf-8")
    assert page.count("<h3>Methods</h3>") == 2
    assert {f"task-hom-{beta}-strict-curves.svg" for beta in ("0.5", "1.0")} <= {
        file.name for file in (tmp_path / "out/figures").iterdir()
    }


@pytest.mark.usefixtures("undrawn")
def test_an_unfinished_run_is_said_and_does_not_compete(build: Build, tmp_path: Path) -> None:
    runs = [
        build("d", "disco", done=1, last=99.0),
        build("f", "finetune"),
        build("g", "finetune", 1),
    ]
    page = write(runs, tmp_path / "out").read_text(encoding="utf-8")
    assert "unfinished: 1 of 3 stages" in page
    assert [row["unfinished"] for row in rows_of(runs)] == ["yes", "no"]
    assert "**99.00**" not in markdown(runs) and "unfinished: 1 of 3" in markdown(runs)
    assert read_run(runs[0]).unfinished


@pytest.mark.parametrize("method", ["zeroshot", "individual", "multitask"])
def test_a_reference_point_alone_makes_a_report(
    build: Build, tmp_path: Path, method: str, request: pytest.FixtureRequest
) -> None:
    if method != "individual":  # one of them is drawn, too
        request.getfixturevalue("undrawn")
    page = write([build("r", method)], tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert "unfinished" not in text and 'id="final"' in text and 'id="curves"' not in text
    run = read_run(tmp_path / "r")
    assert run.method == method and not run.unfinished
    assert run_results(run)["forgetting"] is None


@pytest.mark.usefixtures("undrawn")
def test_a_run_of_nothing_but_a_matrix_makes_a_report(build: Build, tmp_path: Path) -> None:
    full = build("d", "disco")
    bare = tmp_path / "bare"
    write_json(bare / "matrix.json", read_json(full / "matrix.json"))
    text = write([bare], tmp_path / "out").read_text(encoding="utf-8")
    assert "holds no config.toml" in text and 'id="accuracy-disco"' in text


def test_a_run_without_a_row_yet_makes_a_report(build: Build, tmp_path: Path) -> None:
    run = build("d", "disco", done=0, last=None, avg=None)
    assert "unfinished: 0 of 3 stages" in write([run], tmp_path / "out").read_text("utf-8")


@pytest.mark.usefixtures("undrawn")
def test_examples_show_right_and_wrong_with_their_images(build: Build, tmp_path: Path) -> None:
    page = write([build("d", "disco"), build("f", "finetune")], tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert text.count('<article class="card case">') == 9
    assert text.count('<img src="data:image/png;base64,') == 9
    assert text.count("✓") >= 6 and text.count("✗") >= 3
    assert text.count("<code>fcit why ") == 9 and "/d IconQA --id=IconQA-" in text


@pytest.mark.usefixtures("undrawn")
def test_a_report_without_examples_shows_no_test_sample(build: Build, tmp_path: Path) -> None:
    run, out = str(build("d", "disco")), tmp_path / "out"
    done = CliRunner().invoke(app, ["report", run, "--out", str(out), "--no-examples"])
    assert done.exit_code == 0, done.output
    text = (out / "index.html").read_text("utf-8")
    assert (
        "data:image/png" not in text
        and "What is drawn here" not in text
        and ">Examples<" not in text
    )
    assert "data:image/png" in write([Path(run)], tmp_path / "with").read_text("utf-8")


@pytest.mark.usefixtures("undrawn")
def test_examples_show_only_answers_to_the_same_questions(build: Build) -> None:
    """In the mini suite, a question's id is that of another question with another seed."""
    runs = [build("d", "disco"), build("f", "finetune"), build("e", "ewc", done=1, last=99.0)]
    file = runs[1] / "predictions" / "3" / "IconQA.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    write_lines(file, [row | {"prompt": "another"} for row in rows])
    (group,) = group_runs(read_runs(runs))
    found = examples(group)
    assert list(found) == list(group.datasets)
    for dataset, cases in found.items():
        labels = {answer.label for case in cases for answer in case.answers}
        assert labels == ({"disco"} if dataset == "IconQA" else {"disco", "finetune"})


@pytest.mark.usefixtures("undrawn")
def test_missing_images_are_said(build: Build, tmp_path: Path) -> None:
    text = write([build("d", images=False)], tmp_path / "out").read_text(encoding="utf-8")
    assert text.count("image not found") == 9 and "data:image/png" not in text


def test_images_outside_the_data_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    write_text(tmp_path / "secret.png", "x")
    for name in ("../secret.png", str(tmp_path / "secret.png"), ""):
        assert embedded_image([tmp_path / "datasets"], name) == (
            "",
            "image not shown: its path leaves the data folder",
        )
    write_text(tmp_path / "datasets/broken.png", "x")
    assert embedded_image([tmp_path / "datasets"], "broken.png")[1] == "image cannot be decoded"


def test_a_link_to_an_image_is_followed(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "datasets").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "elsewhere.png")
    (tmp_path / "datasets/a.png").symlink_to(tmp_path / "elsewhere.png")
    assert embedded_image([tmp_path / "datasets"], "a.png")[0].startswith("data:image/png")


def test_a_large_image_is_made_small(tmp_path: Path) -> None:
    from PIL import Image

    Image.effect_noise((900, 700), 80).convert("RGB").save(tmp_path / "large.png")
    uri, missing = embedded_image([tmp_path], "large.png")
    assert uri.startswith("data:image/jpeg") and len(uri) < 60_000 and not missing


@pytest.mark.usefixtures("undrawn")
def test_boxes_are_drawn_over_the_image(build: Build, tmp_path: Path) -> None:
    folder = build("d", "disco", datasets=["Grounding"])
    file = folder / "predictions/1/Grounding.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row |= {"truth": "[0.1,0.2,0.5,0.9]", "prediction": "[0.15, .2, .5, .9]"}
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    text = write([folder], tmp_path / "out").read_text(encoding="utf-8")
    assert "left:10.0%;top:20.0%;width:40.0%;height:70.0%" in text
    assert f"left:15.0%;top:20.0%;width:35.0%;height:70.0%;border-color:{LOOKS['disco'][0]}" in text


@pytest.mark.usefixtures("undrawn")
def test_captions_with_many_references_are_shown_with_their_score(
    build: Build, tmp_path: Path
) -> None:
    folder = build("d", "disco", datasets=["Flickr30k"])
    file = folder / "predictions/1/Flickr30k.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row |= {"truth": ["a dog runs", "the dog", "third"], "score": 37.4}
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    text = write([folder], tmp_path / "out").read_text(encoding="utf-8")
    assert "a dog runs / the dog" in text and ">37</span>" in text


def test_strange_strings_are_escaped_in_every_form(build: Build, tmp_path: Path) -> None:
    names = ["<b>&\"'%", "$x_{1}$", "ok"]
    folder = build("d", NASTY, datasets=names, images=False)
    file = folder / "predictions/3/ok.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row |= {"prompt": "<script>alert(1)</script>", "prediction": "</li><img src=x>"}
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    page = write([folder], tmp_path / "out").read_text(encoding="utf-8")
    assert "<script" not in page and "<img src=x" not in page and "<co>" not in page
    assert "&lt;script&gt;alert(1)" in page and "dis&lt;co&gt; &amp;" in page
    tex = (tmp_path / "out/table.tex").read_text(encoding="utf-8")
    assert r"\& " in tex and r"50\%" in tex and r"\textbackslash{}\_\$\#\{x\}" in tex
    assert r"\textasciitilde{}\textasciicircum{}" in tex
    assert r"dis\<co\>" in (tmp_path / "out/table.md").read_text(encoding="utf-8")
    assert rows_of([folder])[0]["method"] == NASTY


@pytest.mark.usefixtures("undrawn")
def test_data_folder_can_be_given_for_runs_that_name_none(build: Build, tmp_path: Path) -> None:
    folder = build("d", "disco", data={"root": ""})
    unnamed = write([folder], tmp_path / "a").read_text(encoding="utf-8")
    assert "the run names no data folder" in unnamed
    given = write([folder], tmp_path / "b", tmp_path / "data").read_text(encoding="utf-8")
    assert "data:image/png" in given
