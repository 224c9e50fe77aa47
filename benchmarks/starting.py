"""Start-up time: `fcit --help`, and a second run until its first answer, or training step, begins.

benchmarks/speed.py runs it.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from fcit.types import FcitError

FIRST = """
import os, sys, time
import {module} as place
def first(*given, **more):
    print("at", time.time(), flush=True)
    os._exit(0)
place.{name} = first
sys.argv = {argv!r}
from fcit.cli import main
main()
"""


def start(recipe: Path, changes: Sequence[str], times: int) -> dict[str, float]:
    """Wall-clock and CPU seconds of start-up."""
    sets = [word for change in changes for word in ("--set", change)]
    argv = ["fcit", "run", str(recipe), *sets, "--set", "data.train=200", "--set", "data.test=8"]
    found: dict[str, float] = {}

    def note(label: str, rows: Sequence[tuple[float, float]]) -> None:
        for kind, values in zip(("", ", on the CPU"), zip(*rows, strict=True), strict=True):
            found[label + kind] = median(values)

    helped = [sys.executable, "-m", "fcit", "--help"]
    note("fcit --help", [seconds(helped, told=False) for _ in range(times + 1)][1:])
    places = {
        "answer": ("fcit.rounds.evaluate", "answer"),
        "step": ("fcit.rounds.client", "schedule"),
    }
    for label, (module, name) in places.items():
        rows = []
        for _ in range(times + 1):
            with tempfile.TemporaryDirectory() as folder:
                code = FIRST.format(
                    module=module, name=name, argv=[*argv, "--out", folder + "/run"]
                )
                rows.append(seconds([sys.executable, "-c", code], told=True))
        note(f"second run until its first {label} begins", rows[1:])
    return found


def seconds(command: Sequence[str], told: bool) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a process, to its end or to the time that it reports."""
    used = _children()
    begun = time.time()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        told = (done.stderr.strip() or f"ended with status {done.returncode}").splitlines()[-1]
        raise FcitError(f"{' '.join(command[1:3])}: {told}")
    ended = time.time()
    if told:
        line = next(one for one in done.stdout.splitlines() if one.startswith("at "))
        ended = float(line.removeprefix("at "))
    return ended - begun, _children() - used


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
