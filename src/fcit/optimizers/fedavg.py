"""fedavg: the round's average is the next model (McMahan et al. 2017, Communication-Efficient Learning of
Deep Networks from Decentralized Data, arXiv 1602.05629, Algorithm 1)."""

from dataclasses import dataclass

from fcit.optimizers.base import Optimizer


@dataclass(frozen=True)
class Fedavg(Optimizer):
    """Nothing to set."""
