"""finetune: federated fine-tuning, the base method under its own name (FedAvg; McMahan et al. 2017)."""

from dataclasses import dataclass

from fcit.methods.base import Method


@dataclass(frozen=True)
class Finetune(Method):
    """One LoRA goes on through all stages, averaged over each round's clients."""
