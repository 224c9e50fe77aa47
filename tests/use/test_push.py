"""`fcit export --push`: a hub gets what the folder holds, with a card that says how to load it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import handmade
import hub as hubs
from commandline import call, refused


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hubs.Hub]:
    with hubs.serving(tmp_path_factory.mktemp("cache")) as hub:
        yield hub


def test_an_adapter_is_pushed_with_its_card(hub: hubs.Hub, tmp_path: Path, table: dict) -> None:
    run = handmade.run(tmp_path / "first", table)
    matrix = {
        "setting": "task-hom", "method": "disco", "scoring": "strict", "beta": 1.0, "seed": 3,
        "datasets": ["IconQA", "FigureQA"], "stages": ["IconQA", "FigureQA"],
        "matrix": [[50.0, None], [40.0, 62.5]], "last": 51.25, "avg": 50.0,
        "zero_shot": {"IconQA": 10.0, "FigureQA": None},
    }  # fmt: skip
    run.files.write(run.files.matrix, matrix)
    out = tmp_path / "out"
    done = call("export", run.folder, "--subspace", "0", "--push", "me/leaves", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\nuploaded to {hub.url}/me/leaves\n"
    got = hub.files["me/leaves"]
    here = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert got == here and json.loads(got["adapter_config.json"])["peft_type"] == "LORA"
    card = got["README.md"].decode()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "`hf download me/leaves --local-dir my-copy`" in card.split("```")[0]
    assert "| IconQA | 10.00 | 40.00 |\n| FigureQA | – | 62.50 |\n" in card
    assert "| data | the folder mini |" in card
    again = call(
        "export", run.folder, "--subspace", "1", "--push", "me/leaves", "--out", tmp_path / "b"
    )
    assert again.returncode == 0, again.stderr  # the same files with other contents
    words = ("--merged", handmade.PROMPTS[0], "--push", "me/leaves", "--out", tmp_path / "c")
    refused(
        call("export", run.folder, *words),
        "me/leaves: has other files (adapter_config.json), which",
    )
    assert "hf download" not in (tmp_path / "c" / "README.md").read_text("utf-8")
    done = call("export", run.folder, "--subspace", "1", "--push", "me/alone")
    assert done.returncode == 0 and "adapter_config.json" in hub.files["me/alone"], done.stderr


def test_what_cannot_be_pushed_is_one_line(hub: hubs.Hub, tmp_path: Path, table: dict) -> None:
    run = handmade.run(tmp_path / "first", table)
    words = ("export", run.folder, "--subspace", "0")
    refused(call(*words), "--out: say which folder to write")
    refused(call(*words, "--push", "a/b/c"), "a/b/c: is not a repository name")
    refused(
        call("export", run.folder, "--predictions", "mcitlib", "--push", "me/x"), "--push: takes"
    )
    for status, said in ((401, "me/x: http"), (403, "me/x: http"), (500, "me/x: http")):
        hub.refuses = status
        refused(call(*words, "--push", "me/x", "--out", tmp_path / f"{status}"), said)
    hub.refuses = 0
    assert "me/x" not in hub.files and not (tmp_path / "401").exists()
