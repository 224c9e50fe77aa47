"""Sweeps: methods x settings x seeds from one TOML file, several runs at a time.

`plan` reads the file, `status` tells how far each run is, `processes` runs what is missing.
"""

from fcit.runs.sweep.plan import SweepRun, choose, read
from fcit.runs.sweep.processes import run
from fcit.runs.sweep.status import Clock, RunStatus, clock, survey

__all__ = ["Clock", "RunStatus", "SweepRun", "choose", "clock", "read", "run", "survey"]
