"""fcit export, chat and serve from the command line."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import handmade
import zygote
from commandline import COMMAND, call, refused
from fcit.runs.api import Run, load
from fcit.types import FcitError
from fcit.use.export import subspace
from fcit.use.serve import model_name

PROMPT = handmade.PROMPTS[0].replace("\n", " ")


@pytest.fixture(scope="module")
def made(table: dict, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return handmade.run(tmp_path_factory.mktemp("use") / "first", table)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.picture(tmp_path_factory.mktemp("image") / "my photo.png")


def test_export_writes_what_it_is_asked_for(made: Run, tmp_path: Path) -> None:
    refused(call("export", made.folder, "--out", tmp_path / "x"), "--subspace", "--all", "--merged")
    both = call("export", made.folder, "--all", "--subspace", "0", "--out", tmp_path / "x")
    refused(both, "one of")
    refused(call("export", tmp_path / "gone", "--all", "--out", tmp_path / "x"), "gone")
    done = call("export", made.folder, "--subspace", "1", "--out", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "one")
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja",
        "mini-lmm", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    again = call("export", made.folder, "--subspace", "1", "--out", tmp_path / "one")
    refused(again, "not empty")
    wrong = call("export", made.folder, "--subspace", "IconQA", "--out", tmp_path / "two")
    refused(wrong, "'IconQA'", "0 (IconQA); 1 (FigureQA)")


def test_a_run_of_another_device_is_used_on_this_one(made: Run, image: Path) -> None:
    assert load(made.folder, device="mps").config.model.device == "mps"
    done = call("chat", made.folder, "--image", image, "--device", "cuda:99", typed=PROMPT)
    refused(done, "--device: 'cuda:99' cannot be used here")
    before = (made.folder / "matrix.json").read_bytes()
    done = call("evaluate", made.folder, "--device", "cuda:99")
    refused(done, "--device: 'cuda:99' cannot be used here")
    assert (made.folder / "matrix.json").read_bytes() == before


def test_a_notebook_may_go_to_another_folder(
    made: Run, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.folder.parent)
    run = load(made.folder.name)
    with pytest.raises(FcitError, match="^gone: no such run folder"):
        load("gone")
    monkeypatch.chdir(tmp_path)
    assert (str(run.folder), run.results) == (made.folder.name, made.results)
    assert run.answer(image, PROMPT) == made.answer(image, PROMPT)
    assert model_name(run) == made.folder.name
    subspace(run, "0", Path("export"))


def test_chat_answers_what_comes_through_a_pipe(made: Run, image: Path) -> None:
    done = call(
        *("chat", made.folder, "--image", image),
        typed=f"{PROMPT}\n\n{PROMPT}\n/quit\nmore\n",
        columns=200,
    )
    assert done.returncode == 0, done.stderr
    want = made.answer(image, PROMPT)
    lines = done.stdout.splitlines()
    assert lines[:3] == lines[3:]
    assert lines[0] == want.text
    for line, (name, task) in zip(lines[1:3], (("0", "IconQA"), ("1", "FigureQA")), strict=True):
        assert line.startswith(f"{name} {task}")
        assert line.endswith(f"{want.activation[name]:.2f}")
    assert lines[1].count("█") > lines[2].count("█")


def test_chat_at_a_terminal_tells_mistakes_and_goes_on(made: Run, image: Path) -> None:
    pty = pytest.importorskip("pty", reason="no terminals to pretend to be here")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "w") as keyboard, os.fdopen(theirs) as terminal:
        keyboard.write(f"hello\n/image {image}\n{PROMPT}\n/quit\n")
        keyboard.flush()
        done = call("chat", made.folder, typed=terminal)
    assert (done.returncode, done.stderr) == (0, "loading the model\n")
    assert "set an image first" in done.stdout
    assert made.answer(image, PROMPT).text in done.stdout


def test_chat_sets_the_image_and_refuses_what_is_none(
    made: Run, image: Path, tmp_path: Path
) -> None:
    done = call("chat", made.folder, typed=f"/image {image}\n{PROMPT}\n")
    assert done.stdout.splitlines()[0] == made.answer(image, PROMPT).text
    refused(call("chat", made.folder, typed="hello\n"), "/image")
    refused(call("chat", made.folder, typed="/jump\n"), "/jump")
    refused(call("chat", made.folder, "--image", tmp_path / "gone.png"), "gone.png")
    (tmp_path / "text.png").write_text("no image")
    refused(
        call("chat", made.folder, "--image", tmp_path / "text.png", typed="hello\n"), "text.png"
    )


def test_chat_names_a_question_in_another_encoding(made: Run, image: Path) -> None:
    typed = io.TextIOWrapper(io.BytesIO("Qué?\n".encode("latin-1")), "utf-8")
    refused(call("chat", made.folder, "--image", image, typed=typed), "U+DCE9", "encoding")


@pytest.fixture
def served(made: Run) -> Iterator[subprocess.Popen[str]]:
    pytest.importorskip("uvicorn", reason="the extra fcit[serve] is not installed")
    words = [*COMMAND, "serve", str(made.folder), "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_serve_says_where_it_is_and_stops_at_ctrl_c(served: subprocess.Popen[str]) -> None:
    assert served.stderr
    assert served.stderr.readline() == "loading the model\n"
    line = served.stderr.readline()
    place = re.fullmatch(r"serving first at (http://127.0.0.1:\d+) \(Ctrl-C stops\)\n", line)
    assert place, line
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{place[1]}/health", timeout=60) as got:
                assert b'"ok"' in got.read()
            break
        except OSError:
            time.sleep(0.2)
    else:
        pytest.fail("the endpoint does not answer")
    served.send_signal(signal.SIGINT)
    assert served.wait(60) == 0
    assert served.stderr.read() == "stopped\n"


def test_serve_refuses_what_cannot_be(made: Run, table: dict, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra fcit[serve] is not installed")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "accents").write_text("sésame-1\n")
    for words, said in (
        (["--key-file", tmp_path / "gone"], "gone"),
        (["--key-file", tmp_path / "empty"], "is empty"),
        (["--key-file", tmp_path / "accents"], "ASCII"),
        (["--name", "https://chat.example.org"], "--name https://chat.example.org: give a host"),
        (["--tokens", "0"], "--tokens"),
        (["--host", "not a host"], "cannot listen"),
        (["--batch", "0"], "--batch"),
        (["--timeout", "nan"], "--timeout"),
    ):
        refused(call("serve", made.folder, "--port", "0", *words), said)
    alone = handmade.run(tmp_path / "alone", table, "individual")
    refused(call("serve", alone.folder, "--port", "0"), "of its own datasets only")


def test_serve_without_its_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(zygote.FORK, "1")
    code = (
        "import sys; sys.modules['uvicorn'] = None; sys.modules['starlette'] = None;"
        "from fcit.types import FcitError\n"
        "try:\n  import fcit.use.serve\n"
        "except FcitError as error:\n  print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'fcit[serve] @ git+https" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--subspace", "0", "--push", ""], "--push: is empty; write OWNER/NAME"),
        (["--merged", " "], "--merged: is empty; write a dataset or a prompt"),
    ],
)
def test_an_empty_word_of_export_is_refused(words: list[str], said: str, tmp_path: Path) -> None:
    refused(call("export", tmp_path, *words, "--out", tmp_path / "out"), said)
    assert not (tmp_path / "out").exists()


def test_options_of_stats_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    words = ("--identity", tmp_path / "none", "--no-tokens")
    refused(call("data", "stats", *words), "--identity: without effect beside --no-tokens")
