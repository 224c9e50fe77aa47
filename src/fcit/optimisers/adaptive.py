"""The adaptive server step that FedAdam, FedYogi and FedAdagrad share (Reddi et al. 2021, Adaptive
Federated Optimization, arXiv 2003.00295, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fcit.optimisers.base import require
from fcit.types import Weights

if TYPE_CHECKING:
    from torch import Tensor


def step(
    x: Tensor,
    mean: Tensor,
    kept: Weights,
    rates: tuple[float, float, float],
    second: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Weights]:
    """Delta = mean - x; m = beta1 m + (1 - beta1) Delta; x + eta m / (sqrt(v) + tau).

    `rates` are eta, beta1 and tau; `second(v, Delta^2)` gives the next v. m starts at zero and v at
    tau^2; nothing is corrected for the start, as in the paper.
    """
    eta, beta1, tau = rates
    delta = mean - x
    m, v = kept.get("m"), kept.get("v")
    m = (1 - beta1) * delta if m is None else beta1 * m + (1 - beta1) * delta
    v = second(delta.new_full(delta.shape, tau**2) if v is None else v, delta.square())
    return x + eta * m / (v.sqrt() + tau), {"m": m, "v": v}


def check(lr: float, tau: float, **betas: float) -> None:
    """Raise FcitError on hyper-parameters without meaning."""
    require("lr", lr, 0 < lr < float("inf"), "above 0")
    require("tau", tau, 0 < tau < float("inf"), "above 0")
    for name, value in betas.items():
        require(name, value, 0 <= value < 1, "from 0 to below 1")
