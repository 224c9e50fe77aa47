"""`fcit` called in this process, and how to start it as one of its own."""

from __future__ import annotations

import functools
import io
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pytest
import typer.main

from fcit import cli

# The tree of commands is built once for all calls; it holds nothing of a call.
typer.main.get_command = functools.cache(typer.main.get_command)

COMMAND = [sys.executable, "-m", "fcit"]
"""`fcit` as a process, for tests of signals, pipes and exit statuses."""


@dataclass(frozen=True)
class Ended:
    """What a command left; the names are those of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def call(*words: str | Path, typed: str | TextIO = "", columns: int | None = None) -> Ended:
    """Run `fcit WORDS`. typed: its standard input; columns: how wide its output may be."""
    before = signal.getsignal(signal.SIGTERM)  # `fcit sweep` takes it
    out, errors = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(out),
        redirect_stderr(errors),
        pytest.raises(SystemExit) as ended,
    ):
        patch.setattr(sys, "argv", ["fcit", *map(str, words)])
        patch.setattr(sys, "stdin", io.StringIO(typed) if isinstance(typed, str) else typed)
        if columns:
            patch.setenv("COLUMNS", str(columns))
        try:
            cli.main()
        finally:
            signal.signal(signal.SIGTERM, before)
    status = ended.value.code
    assert isinstance(status, int)
    return Ended(status, out.getvalue(), errors.getvalue())


def refused(done: Ended, *parts: str) -> None:
    """The command ended with status 2 and one line that has these parts."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("fcit: ")]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in lines[0]
