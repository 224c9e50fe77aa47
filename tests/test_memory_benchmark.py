"""`fcit plan`'s memory is that of a real turn."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "memory.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a process's peak is read from Linux's /proc")
def test_a_turn_of_a_large_model_takes_the_memory_that_was_planned() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--steps", "3"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.search(r"predicted / measured = ([\d.]+)", done.stdout)
    assert found, done.stdout
    assert 0.85 <= float(found[1]) <= 1.15, done.stdout
