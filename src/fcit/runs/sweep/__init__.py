"""Sweeps: methods x settings x seeds from one TOML file; what is missing is run, several at once."""

from fcit.runs.sweep.plan import Run, choose, read
from fcit.runs.sweep.processes import run
from fcit.runs.sweep.status import Clock, Status, clock, survey

__all__ = ["Clock", "Run", "Status", "choose", "clock", "read", "run", "survey"]
