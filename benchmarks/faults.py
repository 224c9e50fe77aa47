"""What fcit does with what goes wrong: runs that are killed, folders that were damaged or edited, odd
requests and odd replies. Counts outcomes by kind.

    .venv/bin/python benchmarks/faults.py [KIND ...] [--count 10] [--seed 0] [--cases]

Kinds: kills, run-folders, data-folders, model-folders, requests, replies (default: all). `--cases` also
prints every case. The exit status is 1 where a result differs from the undisturbed one without a
word, where a state is not finite, or where an error that is no FcitError comes out.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import tomli_w
from command import ended, options, positive
from garble import garbles

from fcit import cli
from fcit.recipe import config as configs
from fcit.rounds.runfolder import RunFolder
from fcit.seeds import numpy_stream
from fcit.types import FcitError

OTHER, TRACEBACK, NOT_RESUMED = "OTHER RESULT", "TRACEBACK", "NOT RESUMED"
REFUSED_LATER = "REFUSED THOUGH THE CHECK PASSED"
BAD = {OTHER, TRACEBACK, NOT_RESUMED, REFUSED_LATER, "STATE NOT FINITE", "STATE MOVED FAR"}
SAME, REFUSED, UNNAMED = "same result", "refused by name", "refused, file not named"


@dataclass(frozen=True)
class Case:
    """Something that was done to fcit, and what came of it."""

    where: str
    what: str
    outcome: str
    detail: str = ""


def call(*words: str | Path) -> tuple[int, str]:
    """A command's exit status and what it said; an error that came out instead has status -1."""
    out, errors = io.StringIO(), io.StringIO()
    argv = ["fcit", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(errors), mock.patch.object(sys, "argv", argv):
            cli.main()
    except SystemExit as ended:
        code = ended.code
        return code if isinstance(code, int) else 1, errors.getvalue()
    except Exception as error:
        return -1, repr(error)
    return 0, errors.getvalue()


def judge(status: int, said: str, file: str, same: Callable[[], bool]) -> tuple[str, str]:
    """The outcome of a command on a folder in which `file` was damaged."""
    lines = [line for line in said.splitlines() if line.startswith("fcit: ")]
    if status == -1:
        return TRACEBACK, said
    if status == 0:
        return (SAME if same() else OTHER), ""
    told = lines[-1] if lines else said
    return (REFUSED if lines and Path(file).name in told else UNNAMED), told


def recipe(folder: Path, method: str = "disco") -> Path:
    """A recipe of seconds beside its own small data."""
    from fcit import suite

    if not (folder / "data").is_dir():
        suite.write(folder / "data", seed=0, train=16, test=4)
    table = {
        "data": {"root": str(folder / "data")},
        "setting": {"name": "task-hom", "order": ["IconQA", "FigureQA"]},
        "federation": {"clients": 3, "per_round": 2, "rounds": 2, "workers": 1, "min_samples": 4},
        "training": {"lr": 3e-3, "batch_size": 4},
        "method": {"name": method},
        "evaluation": {"max_new_tokens": 4, "general_questions": 2},
    }
    path = folder / "short.toml"
    path.write_text(tomli_w.dumps(table))
    return path


def undisturbed(folder: Path) -> Path:
    """The recipe's run, made once."""
    run = folder / "whole"
    if not (run / "matrix.json").exists():
        assert call("run", recipe(folder), "--out", run)[0] == 0
    return run


def bits(run: Path) -> dict[str, bytes]:
    """What two equal runs have in common."""
    files = [run / "matrix.json", *sorted((run / "state").glob("*.safetensors"))]
    return {file.name: file.read_bytes() for file in files}


def draw(seed: int, *place: str | int) -> np.random.Generator:
    return numpy_stream(seed, "faults", *place)


def kills(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """Runs killed at a random moment after they began, and resumed."""
    file, whole = recipe(folder), undisturbed(folder)
    words = [sys.executable, "-m", "fcit", "run", str(file), "--out"]
    times = [path.stat().st_mtime for path in (whole / "config.toml", whole / "matrix.json")]
    length = times[1] - times[0]
    for number in range(count):
        run = folder / f"killed-{number}"
        with subprocess.Popen(
            [*words, str(run)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            while not (run / "config.toml").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(draw(seed, "kills", number).uniform(0, length))
            process.send_signal(signal.SIGKILL)
            _, words_said = process.communicate()
        if not (run / "config.toml").exists():
            yield Case("a run", "never began", NOT_RESUMED, words_said.decode().strip())
            continue
        rounds = (run / "log.jsonl").read_text().count("\n") if (run / "log.jsonl").exists() else 0
        finished = (run / "matrix.json").exists() and process.returncode == 0
        status, said = call("run", file, "--out", run, "--resume")
        outcome, detail = judge(status, said, "", lambda run=run: bits(run) == bits(whole))
        outcome = NOT_RESUMED if status > 0 else outcome
        yield Case(
            "a run", f"killed, {rounds} rounds logged{', ended' * finished}", outcome, detail
        )


def run_folders(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """Run folders with a damaged or edited file: evaluated, reported, resumed."""
    file, finished, cut = recipe(folder), undisturbed(folder), folder / "cut"
    commit = RunFolder.commit

    def cut_off(self: RunFolder, state, position, memory=None) -> None:
        commit(self, state, position, memory)
        if (position.stage, position.rounds) == (1, 1):
            raise KeyboardInterrupt

    with mock.patch.object(RunFolder, "commit", cut_off):
        call("run", file, "--out", cut)
    expected: dict[str, object] = {}

    def tried(verb: str, run: Path) -> tuple[int, str, Callable[[], object]]:
        if verb == "report":
            out = run.with_name("out")
            shutil.rmtree(out, ignore_errors=True)
            with (
                mock.patch("fcit.report.style.to_svg", lambda figure: "<svg/>"),
                mock.patch("fcit.report.style.save_png"),
            ):  # the tables are compared, not the figures
                status, said = call("report", run, "--out", out)
            return status, said, lambda: [(out / f"{name}.csv").read_bytes() for name in TABLES]
        if verb == "evaluate":
            status, said = call("evaluate", run)
            return status, said, lambda: (run / "matrix.json").read_bytes()
        status, said = call("run", file, "--out", run, "--resume")
        return status, said, lambda: bits(run)

    todo = [
        (verb, base, path.relative_to(base), how)
        for verb, base in (("evaluate", finished), ("report", finished), ("resume", cut))
        for path in sorted(base.rglob("*"))
        if path.is_file() and path.stat().st_size
        for how in (*garbles(path), "removed")
    ]
    order = draw(seed, "run-folders").permutation(len(todo))
    for number in order[:count]:
        verb, base, path, how = todo[number]
        work = folder / "work"
        if verb not in expected:
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(base, work)
            status, said, result = tried(verb, work)
            assert status == 0, said
            expected[verb] = result()
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work)
        if not damage(work / path, how, draw(seed, "run-folders", int(number))):
            continue
        status, said, result = tried(verb, work)
        outcome, detail = judge(
            status, said, path.name, lambda r=result, v=verb: r() == expected[v]
        )
        yield Case(f"{verb}: {path}", how, outcome, detail)


TABLES = ("table", "paper", "significance")


def damage(path: Path, how: str, generator: np.random.Generator) -> bool:
    """Do this to a file; False if it stays as it was."""
    if how == "removed":
        path.unlink()
        return True
    before, after = path.read_bytes(), garbles(path)[how](generator)
    if after is None or after == before:
        return False
    path.write_bytes(after)
    return True


def data_folders(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """Data folders with a damaged file: checked, and read as a run reads them."""
    from fcit.models.images import open_image
    from fcit.worker.experiment import Experiment

    file = recipe(folder)
    config = configs.load(file)
    whole = folder / "whole-data"
    shutil.copytree(folder / "data", whole)
    names = ("IconQA", "FigureQA")
    files = [
        path.relative_to(whole)
        for name in names
        for path in (
            *whole.glob(f"instructions/{name}/*"),
            *whole.glob(f"datasets/{name}/*/*0.png"),
        )
    ]
    todo = [(path, how) for path in files for how in (*garbles(whole / path), "removed")] * 3
    for number in draw(seed, "data-folders").permutation(len(todo))[:count]:
        path, how = todo[number]
        work = folder / "data"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(whole, work)
        if not damage(work / path, how, draw(seed, "data-folders", int(number))):
            continue
        status, said = call("data", "check", work)
        try:
            experiment = Experiment(config)
            experiment.check_ids()
            for name in names:
                for part in ("train", "test"):
                    for image in experiment.data_of(experiment.samples(name, part)).images:
                        open_image(image, image.name)
            read, told = True, ""
        except FcitError as error:
            read, told = False, str(error)
        except Exception as error:
            yield Case(str(path), how, TRACEBACK, f"reading: {error!r}")
            continue
        if status == -1:
            yield Case(str(path), how, TRACEBACK, said)
        elif status and not read:
            named = path.name in told or path.stem in told
            yield Case(str(path), how, REFUSED if named else UNNAMED, told)
        elif status:
            yield Case(str(path), how, "named by the check alone")
        else:
            outcome = "other data, well formed" if read else REFUSED_LATER
            yield Case(str(path), how, outcome, told)


def model_folders(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """Model folders with a damaged file: loaded, and asked one question."""
    import resource

    from PIL import Image

    from fcit.models import CHECKPOINTS
    from fcit.models.lmm import LMM

    Image.new("RGB", (40, 30), "teal").save(folder / "a.png")
    base, work = CHECKPOINTS / "mini-lmm", folder / "model"
    todo = [
        (path, how)
        for path in sorted(base.iterdir())
        if path.suffix != ".md"
        for how in (*garbles(path), "removed")
    ] * 2
    limit = resource.getrlimit(resource.RLIMIT_AS)
    for number in draw(seed, "model-folders").permutation(len(todo))[:count]:
        path, how = todo[number]
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work)
        if not damage(work / path.name, how, draw(seed, "model-folders", int(number))):
            continue
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, limit[1]))  # a lying size is no swamp
        errors = io.StringIO()
        try:
            with redirect_stderr(errors):
                LMM(work).generate(["What is this?"], [folder / "a.png"], 4)
            outcome, detail = "answers, as another model may", ""
        except FcitError as error:
            named = path.name in str(error)
            outcome, detail = (REFUSED if named else UNNAMED), str(error)
            if "\n" in detail:
                outcome = TRACEBACK
        except Exception as error:
            outcome, detail = TRACEBACK, repr(error)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limit)
        yield Case(path.name, how, outcome, detail)


def kinds() -> dict[str, tuple[Callable[[Path, int, int], Iterator[Case]], int]]:
    """The kinds, and how many cases are tried of each if nothing else is asked."""
    from faults_wire import replies, requests

    return {
        "kills": (kills, 8),
        "run-folders": (run_folders, 60),
        "data-folders": (data_folders, 60),
        "model-folders": (model_folders, 40),
        "requests": (requests, 400),
        "replies": (replies, 600),
    }


def main() -> int:
    words = options(__doc__)
    words.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(kinds()))
    words.add_argument("--count", type=positive, help="cases of each kind")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--cases", action="store_true", help="print every case")
    asked = words.parse_args()
    if unknown := set(asked.kinds) - kinds().keys():
        words.error(f"no such kind: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("FCIT_CACHE", cache)
        return _tried(asked)


def _tried(asked: argparse.Namespace) -> int:
    """Try the cases and print the counts; 1 if an outcome is bad."""
    bad = 0
    for name in asked.kinds or kinds():
        kind, count = kinds()[name]
        found: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            for case in kind(Path(folder), asked.count or count, asked.seed):
                found[case.outcome] += 1
                if asked.cases or case.outcome in BAD:
                    said = f": {case.detail}" if case.detail else ""
                    print(f"  {case.where}, {case.what}: {case.outcome}{said}"[:400], flush=True)
        print(f"{name} ({found.total()} cases)")
        for outcome, times in found.most_common():
            print(f"  {times:5}  {outcome}", flush=True)
        bad += sum(times for outcome, times in found.items() if outcome in BAD)
    return int(bad > 0)


if __name__ == "__main__":
    ended(main)
