"""The mini suite's figures: runs what is missing, checks every target, prints the tables of docs/mini.md.

    .venv/bin/python benchmarks/mini.py [--plan task-hom/tiny/0,1,2 ...] [--jobs 2] [--out runs/mini]

A run that was finished with the same recipe, data and mini model is read, not repeated; one that was
cut off goes on. Tables (mean and sample standard deviation over seeds) and the verdict on every target
go to standard output, progress to standard error. `--tables` runs nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from threading import Event

from measures import (
    METHODS,
    REFERENCES,
    Key,
    Measured,
    Runs,
    clock_file,
    datasets_table,
    measure,
    methods_table,
)
from targets import targets

from fcit import config
from fcit.experiment import Experiment
from fcit.files import read_json, write_json
from fcit.session import Session
from fcit.types import FcitError
from fcit.watch import Silent, Terminal

RECIPES = Path(__file__).parents[1] / "recipes" / "mini"
PLAN = (
    "task-hom/tiny/0,1,2",
    "task-hom/small/0",
    "cap-hom/tiny/0",
    "task-het/tiny/0",
    "cap-het/tiny/0",
)


class Benchmark:
    """Where the runs are, and how they are run."""

    def __init__(self, out: Path, changes: Sequence[str], jobs: int):
        self.out, self.changes, self.jobs = out, list(changes), jobs
        self.watch, self.stopped = Terminal(), Event()

    def config(self, key: Key) -> config.Config:
        """A run's configuration: its setting's recipe, and what the plan says otherwise."""
        return config.load(RECIPES / f"{key.setting}.toml", self._changes(key), key.method)

    def _changes(self, key: Key) -> list[str]:
        workers = ["federation.workers=1"] if self.jobs > 1 else []
        return [*workers, *self.changes, f"seed={key.seed}", f'data.size="{key.size}"']

    def finished(self, key: Key) -> bool:
        """Whether a run is whole. Raises FcitError when it is one of another recipe, data or model."""
        folder = key.folder(self.out)
        clock = clock_file(folder)
        if not clock.is_file() or not read_json(clock)["done"]:
            return False
        session = Session(self.config(key), folder, Silent())
        session.open(resume=True)
        data = Path(read_json(session.folder.partition)["data"]).name
        if data != session.experiment.root.name:
            raise FcitError(f"{folder}: was made with other data; delete it to repeat the run")
        return True

    def run(self, keys: Sequence[Key]) -> int:
        """Run what is not finished, `jobs` at once; return how many failed."""
        todo = [key for key in keys if not self.finished(key)]
        for key in {(key.size, key.seed): key for key in todo}.values():
            Experiment(self.config(key)).prepare(self.watch)  # not on the clock, nor made twice
        failed = 0
        with self.watch.bar("runs", len(todo)) as step, ThreadPoolExecutor(self.jobs) as pool:
            try:
                step(0)
                works = {pool.submit(self._one, key): key for key in todo}
                for done, work in enumerate(as_completed(works), 1):
                    failed += not work.result()
                    step(done)
            except BaseException:
                self.stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return failed

    def _one(self, key: Key) -> bool:
        """Run or resume one; its time so far stands beside its folder."""
        folder = key.folder(self.out)
        clock, log = clock_file(folder), folder.with_name(f"{folder.name}.log")
        before = read_json(clock) if clock.is_file() else {"seconds": 0.0, "starts": 0}
        now = before | {"starts": before["starts"] + 1, "jobs": self.jobs, "done": False}
        write_json(clock, now)
        words = ["run", str(RECIPES / f"{key.setting}.toml"), "--method", key.method]
        words += [word for change in self._changes(key) for word in ("--set", change)]
        words += ["--out", str(folder), *(["--resume"] if folder.is_dir() else [])]
        start = time.monotonic()
        with log.open("a", encoding="utf-8") as file:
            child = subprocess.Popen(
                [sys.executable, "-m", "fcit.cli", *words], stdout=file, stderr=file
            )
            while child.poll() is None:
                if self.stopped.wait(0.2):
                    child.terminate()
        seconds = round(before["seconds"] + time.monotonic() - start, 1)
        good = child.returncode == 0
        write_json(clock, now | {"seconds": seconds, "done": good})
        if good:
            self.watch.say(f"{key}: {seconds:.0f} seconds")
        elif not self.stopped.is_set():
            said = [x for x in log.read_text("utf-8").splitlines() if x.startswith("fcit: ")]
            self.watch.say(f"{key}: {said[-1] if said else f'failed, see {log}'}")
        return good

    def read(self, keys: Sequence[Key]) -> Iterator[Measured]:
        """The figures of the finished ones."""
        for key in keys:
            if self.finished(key):
                yield measure(key, key.folder(self.out))


def keys(plan: Sequence[str], methods: Sequence[str]) -> list[Key]:
    """The runs of a plan of SETTING/SIZE/SEEDS. Raises FcitError on a word that is not of that form.

    A heterogeneous setting takes its reference points from the homogeneous one where the plan has it.
    """
    parts: list[tuple[str, str, list[int]]] = []
    for word in plan:
        try:
            setting, size, seeds = word.split("/")
            parts.append((setting, size, [int(seed) for seed in seeds.split(",")]))
        except ValueError:
            raise FcitError(f"--plan {word}: write SETTING/SIZE/SEEDS, e.g. {PLAN[0]}") from None
        if not (RECIPES / f"{setting}.toml").is_file():
            raise FcitError(f"--plan {word}: no recipe {RECIPES / setting}.toml")
        if size not in config.SIZES:
            raise FcitError(f"--plan {word}: no size {size!r}; there are {', '.join(config.SIZES)}")
    places = {(setting, size, seed) for setting, size, seeds in parts for seed in seeds}
    found = [
        Key(setting, size, seed, method)
        for setting, size, seeds in parts
        for seed in seeds
        for method in methods
        if method in ("finetune", "disco") or (REFERENCES.get(setting), size, seed) not in places
    ]
    return list(dict.fromkeys(found))


def show(runs: Runs, missing: Sequence[Key]) -> None:
    """Print tables and verdicts."""
    for setting, size in runs.groups():
        print(f"### {setting}, {size}\n\n{methods_table(runs, setting, size)}\n")
        print(f"{datasets_table(runs, setting, size)}\n")
    print("### Targets\n\n```")
    for target in targets(runs):
        print(target.line())
    for key in missing:
        print(f"----  {key}: not run")
    print("```")


def main() -> None:
    """Run what is missing and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--plan", nargs="+", default=PLAN, metavar="SETTING/SIZE/SEEDS", help="what to run")
    add("--methods", nargs="+", default=METHODS, choices=METHODS, help="which methods of it")
    add("--out", type=Path, default=Path("runs") / "mini", help="the runs' folder [runs/mini]")
    add("--jobs", type=int, default=1, help="runs at once, each with one worker then [1]")
    add("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE", help="any key")
    add("--tables", action="store_true", help="run nothing, show what is finished")
    add("--json", type=Path, metavar="FILE", help="write the figures and verdicts there too")
    given = parser.parse_args()
    if given.jobs < 1:
        parser.error("--jobs: at least 1")
    bench = Benchmark(given.out, given.changes, given.jobs)
    failed = 0
    try:
        wanted = keys(given.plan, given.methods)
        if not given.tables:
            failed = bench.run(wanted)
        runs = Runs(list(bench.read(wanted)))
        have = {one.key for one in runs.all}
        show(runs, [key for key in wanted if key not in have])
        if given.json:
            verdicts = [asdict(target) for target in targets(runs)]
            write_json(given.json, {"runs": [asdict(one) for one in runs.all], "targets": verdicts})
    except FcitError as error:
        parser.exit(2, f"mini.py: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "mini.py: stopped; the same command goes on from there\n")
    parser.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
