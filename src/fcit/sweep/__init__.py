"""Sweeps: methods x settings x seeds from one TOML file; what is missing is run, several at once."""

from fcit.sweep.plan import Run, choose, read
from fcit.sweep.processes import run
from fcit.sweep.status import Clock, Status, clock, survey

__all__ = ["Clock", "Run", "Status", "choose", "clock", "read", "run", "survey"]
