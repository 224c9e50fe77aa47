"""olora: O-LoRA (Wang et al. 2023, Findings of EMNLP, arXiv 2310.14152), federated by FedAvg.

Every stage learns a LoRA of its own in a subspace orthogonal to those of the stages before, which stay
frozen; all of them are summed, in training and in answering.
"""

from dataclasses import dataclass
from typing import Any

from fcit.methods.base import AtLeast0
from fcit.methods.model import Model
from fcit.methods.stages import LoraPerStage
from fcit.types import State, Tensor, Weights
from fcit.weights import factors, summed


@dataclass(frozen=True)
class Olora(LoraPerStage):
    """The rows of A span what a LoRA reads."""

    orthogonality: AtLeast0 = 0.5
    """Weight lambda_1 of the overlap with old stages: the L1 norm of A_t A_i^T, summed over stages i and
    layers."""

    def penalty(self, model: Model, received: State, memory: Weights, batch: Any) -> Tensor | float:
        *old, new = (model.live(name) for name in sorted(received.adapters, key=int))
        return self.orthogonality * overlap(new, old) if old else 0.0


def overlap(new: Weights, old: list[Weights]) -> Tensor:
    """Sum over old LoRAs and layers of ||A_new A_old^T||_1 (all entries' absolute values, as in the
    authors' published code); 0 when every row of A_new is orthogonal to every row of every A_old."""
    factors_new = factors(new)
    return summed(
        (factors_new[path][0] @ a.T).abs().sum()
        for block in old
        for path, (a, _) in factors(block).items()
    )
