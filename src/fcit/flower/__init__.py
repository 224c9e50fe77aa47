"""Everything that knows Flower: its engine, the nodes' side, a simulation on one machine, and the folders
of a deployment.
"""

import os

NAME_FILE = "flower.txt"
"""In a run's folder: the name by which Flower's clients know the run."""

QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
"""By default Flower reports every run to its makers and asks for newer versions."""


def hush() -> None:
    """Turn Flower's telemetry off and let it log errors only; call this before flwr is imported."""
    os.environ |= QUIET
    os.environ.setdefault("FLWR_LOG_LEVEL", "ERROR")
