"""fedavg: the round's average is the next model (McMahan et al. 2017, Communication-Efficient Learning of
Deep Networks from Decentralized Data, arXiv 1602.05629, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

from fcit.optimisers.base import Optimiser


@dataclass(frozen=True)
class Fedavg(Optimiser):
    """Nothing to set."""
