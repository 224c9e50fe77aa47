"""The documents' code, in its order, and a reader who follows it word by word in a folder of its own."""

from __future__ import annotations

import argparse
import fnmatch
import inspect
import io
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest
import typer
from PIL import Image

from commandline import call
from fcit.cli import app
from fcit.files import read_json, write_json, write_lines
from fcit.recipe import config, sections
from fcit.runs import sweep

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.rglob("*.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
    *sorted(ROOT.glob("benchmarks/*/README.md")),
    *sorted(ROOT.glob("src/fcit/models/checkpoints/*/README.md")),
]
RECIPES = sorted([*ROOT.glob("recipes/**/*.toml"), *ROOT.glob("examples/*/*.toml")])
SCRIPTS = sorted(
    [*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("tools/*.py"), *ROOT.glob("examples/*/*.py")]
)

PROGRAMS = (
    "fcit", "python", "make", "pip", "flwr", "hf", "export", "rm", "start", "register", "run", "status",
    "python3", "useradd", "chown", "cp", "mv", "tar", "ssh-keygen", "systemctl", "sudo", "pkill", "curl",
    "sh", "docker", "sbatch", "mkdir", "test",
)  # fmt: skip
"""What a shell line of a document begins with."""

SCRIPT_NAMES = ("start", "register", "run", "status")
"""Commands that `fcit deploy init` writes."""

SMALL = (
    "data.train=20", "data.test=8",
    "federation.rounds=1", "federation.min_samples=1", "federation.workers=1",
    "evaluation.max_new_tokens=2", "evaluation.general_questions=0", "evaluation.limit=2",
    "evaluation.forward_transfer=false",
)  # fmt: skip
"""What makes a run short. The commands stay as they are; the recipes that they name read these values."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Step:
    """A command, or a block of code, of a document."""

    document: str
    line: int
    language: str
    text: str
    file: str = ""
    """Where a reader puts the block, as the line above it says."""

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.text.splitlines()[0]}"

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


# -- what the documents say ------------------------------------------------------------------------


@cache
def blocks(path: Path) -> list[Step]:
    """The fenced blocks of a page; their language is "" for text and for what a command prints."""
    text, found = path.read_text("utf-8"), list[Step]()
    for one in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.S | re.M):
        before = text[: one.start()].rstrip().splitlines()
        above = re.search(r"`([\w./-]+\.\w+)`:$", before[-1]) if before else None
        lines = [line.removeprefix(one[1]) for line in one[3].splitlines()]
        at = text[: one.start()].count("\n") + 2
        file = above[1] if above else ""
        found.append(Step(name(path), at, one[2], "\n".join(lines) + "\n", file))
    return found


def commands(block: Step) -> Iterator[Step]:
    """The lines of a shell block, continued lines in one."""
    lines = iter(enumerate(block.text.splitlines(), block.line))
    for at, line in lines:
        while line.endswith("\\"):
            line = line[:-1] + next(lines)[1]
        if shlex.split(line, comments=True):
            yield Step(block.document, at, "sh", line.strip())


@cache
def steps(path: Path) -> list[Step]:
    """All that a reader of this file does, from its first line to its last."""
    if path.suffix == ".md":
        found = [one for block in blocks(path) for one in _parts(block)]
    else:
        found = [Step(name(path), at, "sh", text) for at, text in _told(path)]
    return found


def _parts(block: Step) -> Iterator[Step]:
    yield from commands(block) if block.language == "sh" else [block]


def _told(path: Path) -> Iterator[tuple[int, str]]:
    """Commands in a recipe's comments, and in a script's docstring without the brackets of a synopsis."""
    sign = "#     " if path.suffix == ".toml" else "    "
    lines = path.read_text("utf-8").split('"""')[1 if path.suffix == ".py" else 0].splitlines()
    for at, line in enumerate(lines, 1):
        text = line.removeprefix(sign)
        if line.startswith(sign) and program(text):
            more = takewhile(lambda one: one.startswith(sign + "    "), lines[at:])
            joined = " ".join([text, *(one.removeprefix(sign).strip() for one in more)])
            yield at, re.sub(r" \.\.\.|[][]| \\(?= )", "", joined)


def program(line: str) -> str:
    """The name of the program that a line calls, or ""."""
    first = line.strip().split(" ")[0]
    called = Path(first).name
    alone = called in SCRIPT_NAMES and "/" not in first
    return called if called in PROGRAMS and not alone else ""


def helped() -> list[Step]:
    """The examples in the texts of `fcit --help` and of every command's --help."""
    found = list[Step]()
    for words, command in every_command():
        lines = inspect.cleandoc(command.help or "").splitlines()
        for line in lines:
            if one := re.match(r"(?:Example:  |    )(fcit .*)", line):
                found.append(Step(" ".join(["fcit", *words, "--help"]), 1, "sh", one[1]))
    return found


def every_command() -> Iterator[tuple[list[str], typer.core.TyperCommand]]:
    """Every command with its words, and first of all `fcit` itself."""
    open_ones = [([], typer.main.get_command(app))]
    while open_ones:
        words, command = open_ones.pop(0)
        yield words, command  # type: ignore[misc]
        inner = getattr(command, "commands", {})
        open_ones += [([*words, key], value) for key, value in inner.items()]


# -- what is not run still has to parse ------------------------------------------------------------


class ParsedError(Exception):
    """A script has read its command line."""


def parse(step: Step) -> None:
    """Assert that a command that is not run could be: its options, keys, files and names exist."""
    words, _ = _redirected(step.words)
    while "=" in words[0]:  # VARIABLE=value before a command
        words = words[1:]
    called = program(words[0])
    assert called, f"{step}: no program that documents call"
    parse_extras(step.text)
    if called == "fcit":
        parse_fcit(words[1:])
    elif called == "python":
        parse_script(words[1:])
    elif called == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
        assert set(words[1:]) <= set(targets), step
    elif called == "sh":
        assert (ROOT / words[1]).is_file(), step
    elif called in SCRIPT_NAMES:
        assert list(ROOT.glob(f"src/fcit/flower/templates/{called}*.sh")), step


def parse_fcit(words: Sequence[str]) -> dict:
    """The parameters of an `fcit` command. Its recipe, sweep file and a sweep's folders are looked up."""
    command, rest = typer.main.get_command(app), list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    given = command.make_context(" ".join(words), rest).params
    own = {str(given.get("recipe")), str(given.get("method"))} & written()
    of_a_run = given.get("resume") and not str(given["recipe"]).endswith(".toml")
    if given.get("recipe") and not own and not of_a_run:
        path = ROOT / given["recipe"]
        config.load(
            path if path.exists() else Path(given["recipe"]),
            given["changes"] or [],
            given.get("method"),
        )
    if command.name == "sweep":
        sweep.choose(runs_of(ROOT / given["file"]), given["only"] or [])
    if command.name == "report":
        outs = {Path(run).parts[:2] for run in swept()}
        told = [one for one in map(str, given["folders"]) if Path(one).parts[:2] in outs]
        lost = [one for one in told if not any(map(within(one), swept()))]
        assert not lost, f"no sweep makes {lost}"
    return given


@cache
def written() -> set[str]:
    """The files that readers of the pages and of the help texts write, or print a command's lines to."""
    told = [*helped(), *(step for path in PAGES for step in steps(path))]
    printed = {_redirected(step.words)[1] for step in told if step.language == "sh"}
    return ({step.file for step in told} | printed) - {""}


def within(pattern: str) -> Callable[[str], bool]:
    """Whether a run's folder is the one that a pattern names, or in it."""
    return lambda run: fnmatch.fnmatch(run, pattern) or fnmatch.fnmatch(run, pattern + "/*")


@cache
def runs_of(path: Path) -> list[sweep.SweepRun]:
    """The runs of a sweep file of the repository."""
    return sweep.read(path, None)


@cache
def swept() -> list[str]:
    """The folders of all runs that the repository's sweeps make."""
    files = [path for path in RECIPES if "[[runs]]" in path.read_text("utf-8")]
    found = [run for path in files for run in runs_of(path)]
    return [run.folder.resolve().relative_to(ROOT).as_posix() for run in found]


def parse_script(words: Sequence[str]) -> None:
    """Let a Python script, or a module after -m, read its command line and stop."""
    if words[0] == "-m":
        assert (ROOT / words[1].replace(".", "/") / "__main__.py").is_file(), words[1]
        return
    script = ROOT / words[0]
    assert script.is_file(), words[0]
    if not re.search(r"\bargparse\b|\boptions\(", script.read_text("utf-8")):
        assert not words[1:], f"{words[0]} takes no arguments"
        return
    read = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *args: object) -> None:
        read(self, *args)  # type: ignore[arg-type]
        raise ParsedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ParsedError):
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", list(words))
        patch.syspath_prepend(str(script.parent))
        runpy.run_path(str(script), run_name="__main__")


def parse_extras(text: str) -> None:
    """The extras of fcit that `pip install 'fcit[...]'` names exist, and the command says where fcit is:
    its name on PyPI is another project's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for named in re.findall(r"fcit\[([\w,]+)\]", text):
        assert set(named.split(",")) <= set(project["optional-dependencies"]), text
    assert not re.search(r"\binstall +(--?[\w-]+ +)*['\"]?fcit\b(?! @|\[[\w,]+\] @)", text), text


# -- a reader --------------------------------------------------------------------------------------


Words = Sequence[str]


def photo(path: Path, words: Words = (), at: int = 0) -> None:
    """A picture of a reader's own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 20), (20 * at % 256, 90, 200 - at)).save(path)


def photos(path: Path, words: Words) -> None:
    for at in range(20):
        photo(path / f"{at}.png", at=at)


def plants(path: Path, words: Words) -> None:
    """The pictures that the records of docs/add-a-dataset.md name."""
    for at in range(1, 4):
        photo(path.parents[1] / "data" / "datasets" / "plants" / f"000{at}.png", at=at)


def table(path: Path, words: Words) -> None:
    """A reader's table of twenty pictures in a folder of photos, with questions and answers."""
    rows = [f"{at}.png,What does it say?,{at}" for at in range(20)]
    path.write_text("\n".join(["image,question,answer", *rows]) + "\n", encoding="utf-8")


def truth(path: Path, words: Words) -> None:
    """A test file with one question."""
    write_json(path, [{"question_id": "1", "image": "1.png", "text": "How many?", "answer": "3"}])


def answers(path: Path, words: Words) -> None:
    """Another system's answers to the questions of the test file in the same command."""
    asked = read_json(path.parent / words[words.index("--truth") + 1])
    write_lines(path, [{"question_id": one["question_id"], "text": "3"} for one in asked])


GIVEN: dict[str, Callable[[Path, Words], None]] = {
    "photo.png": photo,
    "my-photos": photos,
    "my-plants.csv": table,
    "my-meters.csv": table,
    "my-answers.jsonl": answers,
    "plants/0001.png": plants,
    # in the texts of --help
    "photos": photos,
    "plants.csv": table,
    "val.json": truth,
    "answers.jsonl": answers,
}
"""What a reader brings, and no document makes."""

RUN = Step("README.md", 1, "sh", "fcit run recipes/demo.toml --method disco --out runs/first")
"""The run that other pages use as `runs/first`."""


class Reader:
    """Someone who follows one document in a folder like a clone, and remembers finished runs."""

    def __init__(self, folder: Path, runs: dict[str, Path], small: bool = True):
        self.folder, self.runs, self.small = folder, runs, small
        self.port = 0
        clone(folder)

    @contextmanager
    def reading(self) -> Iterator[pytest.MonkeyPatch]:
        """In the reader's folder, with short runs if they are to be."""
        with pytest.MonkeyPatch.context() as patch:
            self.patch = patch
            patch.chdir(self.folder)
            patch.syspath_prepend(str(self.folder))
            patch.setenv("HF_HUB_OFFLINE", "1")
            if self.small:
                self.shorten()
            yield patch

    def shorten(self) -> None:
        load = config.load

        def loaded(
            path: Path,
            changes: Sequence[str] = (),
            method: str | None = None,
            foreign: bool = False,
        ):
            made = "[versions]" in path.read_text("utf-8") if path.is_file() else False
            return load(path, changes if made else [*SMALL, *changes], method, foreign)

        self.patch.setattr(config, "load", loaded)
        for size in sections.SIZES:
            self.patch.setitem(sections.SIZES, size, (20, 8))

    def follow(self, step: Step) -> None:
        """Do what a step says, and assert that it works."""
        for path, make in GIVEN.items():
            if re.search(rf"(?<![\w./-]){path}(?![\w./-])", step.text) and not Path(path).exists():
                make(self.folder / path, step.words if step.language == "sh" else ())
        if step.file:
            self.write(step)
        elif step.language == "python":
            self.execute(step.text)
        elif step.language == "toml":
            config.validate(tomllib.loads(step.text))
        elif step.language == "json":
            json.loads(step.text)
        elif step.language == "sh":
            self.command(step)

    def write(self, step: Step) -> None:
        path = self.folder / step.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(step.text, encoding="utf-8")

    def execute(self, code: str) -> None:
        with redirect_stdout(io.StringIO()):
            exec(compile(code.replace(":8000", f":{self.port}"), "document", "exec"), {})

    def command(self, step: Step) -> None:
        words, printed = _redirected(step.words)
        called = program(words[0])
        if called == "fcit":
            said = self.fcit(words[1:], step)
            if printed:
                Path(printed).write_text(said, encoding="utf-8")
        elif called == "python":
            with redirect_stdout(io.StringIO()):
                self.patch.setattr(sys, "argv", words[1:])
                runpy.run_path(words[1], run_name="__main__")
        elif called == "make":
            for line in recipe_of(words[1]):
                self.command(Step("Makefile", 1, "sh", line))
        elif called == "export":
            for word in words[1:]:
                self.patch.setenv(*word.split("=", 1))
        elif called == "test":  # of the Makefile, with what follows ||
            subprocess.run(["/bin/sh", "-c", step.text], check=True)
        elif called == "rm":
            for word in words[2:]:
                shutil.rmtree(word, ignore_errors=True)
        else:
            raise AssertionError(f"{step}: not a program that this test runs")

    def fcit(self, words: Sequence[str], step: Step) -> str:
        """What the command prints, if it was run."""
        given = [Path(word) for word in words if word.startswith("runs/first")]
        if words[0] != "run" and given and not given[0].exists():
            self.command(RUN)
        if words[0] == "serve":
            self.serve(words, step)
            return ""
        at = words.index("--out") if "--out" in words else len(words)
        out = Path(words[at + 1]) if "--out" in words else None
        known = shlex.join([*words[:at], *words[at + 2 :]])
        if words[0] == "run" and out and known in self.runs:
            shutil.copytree(self.runs[known], out)
            return ""
        done = call(*words, typed="How many icons are there?\n" if words[0] == "chat" else "")
        assert done.returncode == 0, f"{step}\n{done.stderr[-2000:]}"
        if (
            words[0] == "run"
            and out
            and "--resume" not in words
            and words[1].startswith("recipes/")
        ):
            self.runs[known] = self.folder / out
        return done.stdout

    def serve(self, words: Sequence[str], step: Step) -> None:
        """Serve on a free port, ask whether it is well, and let it serve until the page's end."""
        import urllib.request

        import uvicorn

        servers, run = list[uvicorn.Server](), uvicorn.Server.run

        def started(self: uvicorn.Server, *args: object, **options: object) -> None:
            servers.append(self)
            run(self, *args, **options)  # type: ignore[arg-type]

        self.patch.setattr(uvicorn.Server, "run", started)
        free = [*words[: words.index("--port")], "--port", "0"]
        listen = typer.main.get_command(app)
        self.server = threading.Thread(target=lambda: listen(free, standalone_mode=False))
        self.server.start()
        while not (servers and servers[0].started):
            assert self.server.is_alive(), step
            time.sleep(0.02)
        (at,) = servers[0].servers[0].sockets
        self.port, self.stop = at.getsockname()[1], servers[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health") as answer:
            assert answer.status == 200

    def close(self) -> None:
        if self.port:
            self.stop.should_exit = True
            self.server.join()


def _redirected(words: list[str]) -> tuple[list[str], str]:
    """A command without its `> FILE`, and that file, or "" where nothing is to be written."""
    if ">" not in words:
        return words, ""
    at = words.index(">")
    return words[:at], "" if words[at + 1] == "/dev/null" else words[at + 1]


def clone(folder: Path) -> None:
    """What a reader of the repository sees: files to write in are copied, the others are linked."""
    for part in ("recipes", "examples"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("data"))
    for part in ("benchmarks", "docs", "tests", "tools", "Makefile", "pyproject.toml"):
        (folder / part).symlink_to(ROOT / part)


def recipe_of(target: str) -> list[str]:
    """What `make TARGET` runs once everything is installed."""
    words = ["make", "--dry-run", "--old-file=.venv/.installed", target]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.strip() for line in done.stdout.splitlines()]
    return [line for line in lines if line and not line.startswith("make")]
