"""Client-level differential privacy: clipped and noised averages, noised identity tokens, and epsilon.

DP-FedAvg (McMahan et al. 2018, Learning Differentially Private Recurrent Language Models, arXiv
1710.06963, section 3) inside every cohort: all clients have the same weight, whatever their sample
counts. Two federations are neighbours when one client's data is replaced. docs/privacy.md says who is
protected from whom.
"""

from __future__ import annotations

import importlib.util
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fcit.seeds import torch_stream
from fcit.types import FcitError, Identity, Parts, Setting, State, Turn, Update, Weights

if TYPE_CHECKING:
    from torch import Generator


@dataclass(frozen=True)
class Privacy:
    """The `[privacy]` section: client-level differential privacy."""

    clip_norm: Annotated[float, Field(ge=0)] = 0.0
    """Maximum L2 norm of a client's change in a round (0 = no privacy; see [privacy.md](privacy.md))."""
    noise_multiplier: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of the noise on a cohort's sum, in units of `clip_norm`."""
    token_noise: Annotated[float, Field(ge=0)] = 0.0
    """Noise on identity tokens, which are first scaled to length 1."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Delta of the (epsilon, delta) guarantee in `matrix.json`."""
    seeded_noise: bool = True
    """Draw the noise from the run's seed. `false`: from the system, so that no run can be repeated;
    a deployment requires it."""

    def __post_init__(self) -> None:
        if not self.on and (self.noise_multiplier or self.token_noise):
            raise FcitError(
                "privacy: noise protects only what is clipped; set privacy.clip_norm too"
            )

    @property
    def on(self) -> bool:
        """Whether privacy is on: updates are clipped."""
        return self.clip_norm > 0

    def stream(self, seed: int, *key: int | str) -> Generator:
        """The random stream of the noise: from the run's seed, or from the system."""
        return torch_stream(seed if self.seeded_noise else secrets.randbits(63), "privacy", *key)


def hide_token(identity: Identity, privacy: Privacy, noise: Generator) -> Identity:
    """A token scaled to length 1, with noise on every number, whose client counts as one sample."""
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

    `before` is what clients were sent. A client's norm is that of all it changed, so its changes to its
    subspace and to the shared projector are clipped together.
    """
    factors = [min(1.0, privacy.clip_norm / norm) if norm else 1.0 for norm in norms]
    std = privacy.clip_norm * privacy.noise_multiplier
    adapters = _means(before.adapters, [update.adapters for update in updates], factors, std, noise)
    extras = _means(before.extras, [update.extras for update in updates], factors, std, noise)
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
        pairs = zip(sent, factors, strict=True)
        cohort = [(parts[name], factor) for parts, factor in pairs if name in parts]
        for weights, factor in cohort:
            for key in total:
                total[key] += (weights[key] - x[key]) * factor
        result[name] = {
            key: x[key] + (value + randn(value.shape, generator=noise) * std) / len(cohort)
            for key, value in total.items()
        }
    return result


def require() -> None:
    """Raise FcitError unless the privacy accountant is installed."""
    if importlib.util.find_spec("dp_accounting") is None:
        raise FcitError("privacy: needs dp-accounting; pip install 'fcit[privacy]'")


@dataclass(frozen=True)
class Draws:
    """`rounds` rounds, in each of which `drawn` of `pool` clients were sampled secretly. drawn = pool:
    the client took part in all of them, which is no secret."""

    pool: int
    drawn: int
    rounds: int


def exposures(setting: Setting, turns: Sequence[Turn], secret: bool) -> set[tuple[Draws, ...]]:
    """The rounds that the most exposed clients of a setting went through in these turns. A client whose
    stages are a subset of another's is left out.

    secret: nobody knows who was sampled, so a stage's rounds count for its whole pool, with amplification
    by sampling. Otherwise each client has the rounds that it took part in.
    """
    if not secret:
        met = Counter(turn.client for turn in turns)
        return {(Draws(1, 1, rounds),) for rounds in met.values()}
    done = Counter(stage for stage, _ in {(turn.stage, turn.round) for turn in turns})
    pools = {stage: set(setting.pool(setting.stages[stage])) for stage in done}
    memberships = {
        frozenset(stage for stage, pool in pools.items() if client in pool)
        for client in range(setting.clients)
    }
    exposed: set[tuple[Draws, ...]] = set()
    for stages in memberships:
        if not any(stages < others for others in memberships):
            rounds = Counter[int]()
            for stage in stages:
                rounds[len(pools[stage])] += done[stage]
            exposed.add(tuple(Draws(k, setting.per_round, n) for k, n in sorted(rounds.items())))
    return exposed


def epsilon(
    privacy: Privacy, exposed: Iterable[Sequence[Draws]], tokens: int
) -> dict[str, float | None]:
    """Epsilon at `privacy.delta` of the most exposed client (`exposed`: see `exposures`) that sent
    `tokens` tokens: for the updates, the tokens and both. None without noise: there is no bound.

    By Renyi accounting (Mironov 2017; sampling without replacement: Wang et al. 2019, theorem 27).
    Replacing a client changes a sum by two clips at most, hence half the noise multiplier.
    Raises FcitError when dp-accounting is not installed.
    """
    require()
    import dp_accounting as dp
    from dp_accounting import rdp

    def spent(draws: Sequence[Draws], tokens: int) -> float | None:
        if (draws and not privacy.noise_multiplier) or (tokens and not privacy.token_noise):
            return None
        account = rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
        noised = dp.GaussianDpEvent(privacy.noise_multiplier / 2)
        for draw in draws:
            sampled = dp.SampledWithoutReplacementDpEvent(draw.pool, draw.drawn, noised)
            account.compose(sampled if draw.drawn < draw.pool else noised, draw.rounds)
        if tokens:
            account.compose(dp.GaussianDpEvent(privacy.token_noise / 2), tokens)
        return round(float(account.get_epsilon(privacy.delta)), 4) if draws or tokens else 0.0

    everyone = {(), *map(tuple, exposed)}

    def worst(tokens: int) -> float | None:
        values = [spent(draws, tokens) for draws in everyone]
        bounded = [value for value in values if value is not None]
        return max(bounded) if len(bounded) == len(values) else None

    return {
        "epsilon": worst(tokens),
        "epsilon_updates": worst(0),
        "epsilon_tokens": spent((), tokens),
        "delta": privacy.delta,
    }


def secret_noise(privacy: Privacy) -> None:
    """Raise FcitError where clients on other machines could subtract the noise: they get the recipe."""
    if privacy.on and privacy.seeded_noise:
        raise FcitError(
            "privacy.seeded_noise: every client of a deployment gets the recipe and its seed, and could "
            "make this noise again and subtract it; set privacy.seeded_noise = false"
        )
