"""What the scripts here share as commands: how they end, counts, and processes of their own."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fcit.types import FcitError


def ended(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with its status. What a person can mend is one line, status 2."""
    try:
        sys.exit(main())
    except (FcitError, OSError) as error:
        print(f"{_script()}: {error}", file=sys.stderr)
        sys.exit(2)


def options(about: str | None) -> argparse.ArgumentParser:
    """A script's options; its --help shows the script's description as it is written."""
    shown = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=about, formatter_class=shown)


def positive(text: str) -> int:
    """An option's whole number, at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} must be at least 1")
    return number


def printed(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> str:
    """What a process of this script prints. Raises FcitError with its last line where it failed, after a
    traceback that it may have written."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        if done.returncode != 2:
            print("\n".join(lines[:-1]), file=sys.stderr)
        told = lines[-1] if lines else f"a process ended with status {done.returncode}"
        raise FcitError(told.removeprefix(f"{_script()}: "))
    return done.stdout


def _script() -> str:
    return Path(sys.argv[0]).name
