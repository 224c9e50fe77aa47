"""Client-level differential privacy: clipped and noised averages, noised identity tokens, and what they
cost in epsilon.

DP-FedAvg (McMahan et al. 2018, Learning Differentially Private Recurrent Language Models, arXiv
1710.06963, section 3) inside every cohort: clients count alike, whatever number of samples they have.
Two federations are neighbours when one client's data is replaced. docs/privacy.md says who is
protected from whom.
"""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fcit.seeds import torch_stream
from fcit.types import FcitError, Identity, Parts, State, Update, Weights

if TYPE_CHECKING:
    from torch import Generator


@dataclass(frozen=True)
class Privacy:
    """clip: the largest L2 norm of a client's change in one round (0: no privacy). noise: standard
    deviation of the noise on a cohort's sum, in clips. token_noise: of that on a client's identity
    token, which is made one long. delta: of the guarantee. repeatable: the noise comes from the run's
    seed; otherwise from the system, and no two runs are alike."""

    clip: float = 0.0
    noise: float = 0.0
    token_noise: float = 0.0
    delta: float = 1e-5
    repeatable: bool = True

    @property
    def on(self) -> bool:
        """Whether anything is clipped."""
        return self.clip > 0

    def stream(self, seed: int, *place: int | str) -> Generator:
        """Where noise comes from."""
        return torch_stream(seed if self.repeatable else secrets.randbits(63), "privacy", *place)


def hide_token(identity: Identity, privacy: Privacy, noise: Generator) -> Identity:
    """A token of length one with noise on every number, whose client counts as one sample."""
    from torch import randn

    token = identity.token / identity.token.norm()
    token = token + randn(token.shape, generator=noise).to(token) * privacy.token_noise
    return replace(identity, token=token, samples=1)


def aggregate(
    before: State,
    after: State,
    updates: Sequence[Update],
    norms: Sequence[float],
    privacy: Privacy,
    noise: Generator,
) -> State:
    """`after` with clipped, noised means: x + (sum of clipped changes + noise) / n in every cohort.

    `before` is what clients were sent. A client's norm is over all that it changed, so that its part of
    its subspace and of the shared projector are within the clip together.
    """
    factors = [min(1.0, privacy.clip / norm) if norm else 1.0 for norm in norms]
    std = privacy.clip * privacy.noise
    adapters = _means(before.adapters, [one.adapters for one in updates], factors, std, noise)
    extras = _means(before.extras, [one.extras for one in updates], factors, std, noise)
    return replace(after, adapters=after.adapters | adapters, extras=after.extras | extras)


def _means(
    base: Mapping[str, Weights],
    sent: Sequence[Parts],
    factors: Sequence[float],
    std: float,
    noise: Generator,
) -> dict[str, Weights]:
    from torch import randn

    result: dict[str, Weights] = {}
    for name in sorted({name for parts in sent for name in parts}):
        x = base[name]
        total = {key: value.new_zeros(value.shape) for key, value in sorted(x.items())}
        cohort = [(parts, each) for parts, each in zip(sent, factors, strict=True) if name in parts]
        for parts, factor in cohort:
            weights = parts[name]
            for key in total:
                total[key] += (weights[key] - x[key]) * factor
        result[name] = {
            key: x[key] + (value + randn(value.shape, generator=noise) * std) / len(cohort)
            for key, value in total.items()
        }
    return result


def require() -> None:
    """Raise FcitError unless the accountant is there."""
    if importlib.util.find_spec("dp_accounting") is None:
        raise FcitError("privacy: needs dp-accounting; pip install 'fcit[privacy]'")


def epsilon(
    privacy: Privacy, rounds: int, clients: int, per_round: int, tokens: int
) -> dict[str, float | None]:
    """Epsilon at privacy.delta after `rounds` rounds in which `per_round` of `clients` were drawn, and
    after a client has sent `tokens` tokens: of the updates, of the tokens and of both; None where there
    is no noise and so no bound.

    By Renyi accounting (Mironov 2017; sampling without replacement: Wang et al. 2019, theorem 27).
    Replacing a client moves a sum by two clips at most, hence half the noise multiplier.
    Raises FcitError when dp-accounting is not installed.
    """
    require()
    import dp_accounting as dp
    from dp_accounting import rdp

    def spent(*parts: tuple[float, dp.DpEvent, int]) -> float | None:
        happened = [part for part in parts if part[2]]
        if not all(noise for noise, *_ in happened):
            return None
        account = rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
        for _, event, count in happened:
            account.compose(event, count)
        return round(float(account.get_epsilon(privacy.delta)), 4) if happened else 0.0

    noised = dp.GaussianDpEvent(privacy.noise / 2)
    drawn = dp.SampledWithoutReplacementDpEvent(clients, per_round, noised)
    updates = privacy.noise, drawn, rounds
    sent = privacy.token_noise, dp.GaussianDpEvent(privacy.token_noise / 2), tokens
    return {
        "epsilon": spent(updates, sent),
        "epsilon_updates": spent(updates),
        "epsilon_tokens": spent(sent),
        "delta": privacy.delta,
    }
