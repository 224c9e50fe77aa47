"""fedadagrad: Adagrad on the server, with the round's change as its gradient (Reddi et al. 2021, Adaptive
Federated Optimization, arXiv 2003.00295, Algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fcit.optimizers.adaptive import Adaptive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Fedadagrad(Adaptive):
    """v = v + Delta^2, without momentum unless beta1 is set."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the mean change; 0: no momentum."""

    def second(self, v: Tensor, square: Tensor) -> Tensor:
        return v + square
