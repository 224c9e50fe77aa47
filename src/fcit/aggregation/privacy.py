"""Client-level differential privacy: clipped and noised averages, noised identity tokens, and epsilon.

DP-FedAvg (McMahan et al. 2018, Learning Differentially Private Recurrent Language Models, arXiv
1710.06963, section 3) inside every cohort: all clients have the same weight, whatever their sample
counts. Two federations are neighbours when one client's data is replaced. docs/privacy.md says who is
protected from whom.
"""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fcit.seeds import noise_stream
from fcit.types import FcitError, Identity, Parts, Setting, State, Turn, Update, Weights, extra

if TYPE_CHECKING:
    from numpy.random import Generator
    from torch import Tensor


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
        return noise_stream(seed if self.seeded_noise else None, "privacy", *key)


def hide_token(identity: Identity, privacy: Privacy, noise: Generator) -> Identity:
    """A token scaled to length 1, with noise on every number, whose client counts as one sample."""
    token = identity.token / identity.token.norm()
    token = token + _gauss(token, noise) * privacy.token_noise
    return replace(identity, token=token, samples=1)


def _gauss(like: Tensor, noise: Generator) -> Tensor:
    """Numbers from N(0, 1) in the shape of a tensor."""
    import numpy as np
    from torch import from_numpy

    return from_numpy(noise.standard_normal(like.shape, np.float32)).to(like)


def bound_token(identity: Identity, privacy: Privacy) -> Identity:
    """What the server takes of a token: no longer than one that `hide_token` makes can be (but for one in
    a billion), and one sample. So no client weighs much more than another in a subspace's mean."""
    longest = 1 + privacy.token_noise * (len(identity.token) ** 0.5 + 6)
    norm = float(identity.token.norm())
    token = identity.token * (longest / norm) if norm > 1.001 * longest else identity.token
    return replace(identity, token=token, samples=1)


def aggregate(
    before: State,
    after: State,
    expected: Sequence[State],
    updates: Sequence[Update],
    norms: Sequence[float],
    privacy: Privacy,
    noise: Generator,
) -> State:
    """`after` with clipped, noised means: x + (sum of clipped changes + noise) / n in every cohort.

    `before` is what clients were sent, and `expected` what each of them must send back: n counts all
    clients of a cohort, and one that sent nothing counts as no change. So neither the noise nor n depends
    on who failed. A client's norm is that of all it changed, so its changes to its subspace and to the
    shared projector are clipped together.
    """
    factors = [min(1.0, privacy.clip_norm / norm) if norm else 1.0 for norm in norms]
    std = privacy.clip_norm * privacy.noise_multiplier

    def means(base: Parts, asked: Sequence[Parts], sent: Sequence[Parts]) -> dict[str, Weights]:
        result: dict[str, Weights] = {}
        for name, count in sorted(Counter(name for parts in asked for name in parts).items()):
            x, like = base[name], next(parts[name] for parts in asked if name in parts)
            total = {key: x[key].new_zeros(x[key].shape) for key in sorted(like)}
            for parts, factor in zip(sent, factors, strict=True):
                for key in total if name in parts else ():
                    total[key] += (parts[name][key] - x[key]) * factor
            result[name] = dict(x) | {
                key: x[key] + (value + _gauss(value, noise) * std) / count
                for key, value in total.items()
            }
        return result

    adapters = means(
        before.adapters, [each.adapters for each in expected], [each.adapters for each in updates]
    )
    extras = means(
        before.extras, [each.extras for each in expected], [each.extras for each in updates]
    )
    return replace(after, adapters=after.adapters | adapters, extras=after.extras | extras)


def require() -> None:
    """Raise FcitError unless the privacy accountant is installed."""
    if importlib.util.find_spec("dp_accounting") is None:
        raise FcitError(f"privacy: needs dp-accounting: {extra('privacy')}")


Draws = tuple[int, int]
"""(size of the pool, rounds): rounds that drew their clients from a pool of this size."""


def exposures(setting: Setting, turns: Sequence[Turn]) -> set[tuple[Draws, ...]]:
    """For every client of a setting, the rounds of these turns that it could be drawn in."""
    done = Counter(stage for stage, _ in {(turn.stage, turn.round) for turn in turns})
    pools = {stage: set(setting.pool(setting.stages[stage])) for stage in done}
    exposed: set[tuple[Draws, ...]] = set()
    for client in range(setting.clients):
        rounds = Counter[int]()
        for stage, pool in pools.items():
            rounds[len(pool)] += done[stage] * (client in pool)
        exposed.add(tuple(sorted((+rounds).items())))
    return exposed


def epsilon(
    privacy: Privacy, setting: Setting, turns: Sequence[Turn], tokens: int, secret: bool
) -> dict[str, float | None]:
    """Epsilon at `privacy.delta` after these turns, of the client with the largest loss, if a client sent
    at most `tokens` tokens: for the updates, the tokens and both. None without noise: there is no bound.

    By Renyi accounting (Mironov 2017). Neighbours differ in one client's data: who is drawn, and for
    which task, is the same in both. So a client is charged for the rounds that it took part in; replacing
    its data changes a sum by two clips at most, hence half the noise multiplier.

    secret: nobody can know who was drawn (see `draws_are_secret`). Then amplification by sampling without
    replacement (Wang et al. 2019, theorem 27) gives a second bound, and the smaller of the two holds.
    Raises FcitError when dp-accounting is not installed.
    """
    require()
    import dp_accounting as dp
    from dp_accounting import rdp

    noised = dp.GaussianDpEvent(privacy.noise_multiplier / 2)

    def spent(events: Sequence[tuple[dp.DpEvent, int]], tokens: int) -> float:
        rounds = sum(count for _, count in events)
        if (rounds and not privacy.noise_multiplier) or (tokens and not privacy.token_noise):
            return math.inf
        account = rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
        for event, count in (*events, (dp.GaussianDpEvent(privacy.token_noise / 2), tokens)):
            if count:
                account.compose(event, count)
        return float(account.get_epsilon(privacy.delta)) if rounds or tokens else 0.0

    def sampled(pool: int) -> dp.DpEvent:
        drawn = setting.per_round
        return noised if drawn == pool else dp.SampledWithoutReplacementDpEvent(pool, drawn, noised)

    most = max(Counter(turn.client for turn in turns).values(), default=0)
    exposed = exposures(setting, turns) if secret else ()

    def bound(tokens: int) -> float:
        sampled_bounds = [
            spent([(sampled(pool), count) for pool, count in draws], tokens) for draws in exposed
        ]
        return min(spent([(noised, most)], tokens), max(sampled_bounds, default=math.inf))

    bounds = {
        "epsilon": bound(tokens),
        "epsilon_updates": bound(0),
        "epsilon_tokens": spent([], tokens),
    }
    finite = {key: None if math.isinf(value) else round(value, 4) for key, value in bounds.items()}
    return finite | {"delta": privacy.delta}


def draws_are_secret(privacy: Privacy, setting: Setting, from_the_seed: bool, named: bool) -> bool:
    """Whether nobody but the server can know who was drawn, so that sampling amplifies privacy.

    It needs a secret seed from which clients are drawn, and a state in which no clients are `named`, by
    members or by their memories. It also needs stages of one task. With a task for each slot of a round,
    another client in one slot moves the clients after it to other tasks, and all their updates change.
    """
    one_task = all(len(stage.tasks) == 1 for stage in setting.stages)
    return privacy.seeded_noise and from_the_seed and not named and one_task


def secret_noise(privacy: Privacy) -> None:
    """Raise FcitError where clients on other machines could subtract the noise: they get the recipe."""
    if privacy.on and privacy.seeded_noise:
        raise FcitError(
            "privacy.seeded_noise: every client of a deployment gets the recipe and its seed, and could "
            "make this noise again and subtract it; set privacy.seeded_noise = false"
        )
