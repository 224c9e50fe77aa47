"""Averages that a few liars cannot steer, within the cohort of each subspace.

All of them count heads: how many samples a client has is its own word. A cohort too small for a rule
keeps the mean, and that is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from fcit.types import Parts, State, Update, Weights

if TYPE_CHECKING:
    from torch import Tensor

Rule = Literal["mean", "median", "trimmed", "krum"]
"""How a cohort's updates become one: see `coordinates` and `krum`."""


def liars(count: int, share: float) -> int:
    """How many of `count` clients are taken to lie: the share, rounded up."""
    return math.ceil(count * share)


def suffices(rule: Rule, count: int, share: float) -> bool:
    """Whether a cohort is large enough for a rule: as many honest as liars on either side, for Krum
    2 f + 3 in all (Blanchard et al. 2017, proposition 4.2)."""
    least = {"mean": 1, "median": 3, "krum": 2 * liars(count, share) + 3}
    return count >= least.get(rule, 2 * liars(count, share) + 1) and (
        rule != "trimmed" or count > 2
    )


def aggregate(
    after: State, updates: Sequence[Update], rule: Rule, share: float
) -> tuple[State, list[str]]:
    """`after` with the rule's aggregate of every adapter and extra that came back, and a line for each
    that had to stay a mean. share: of a cohort's clients, how many may lie."""
    adapters, notes = _each(after.adapters, [one.adapters for one in updates], rule, share)
    extras, more = _each(after.extras, [one.extras for one in updates], rule, share)
    return replace(after, adapters=adapters, extras=extras), notes + more


def _each(
    means: Mapping[str, Weights], sent: Sequence[Parts], rule: Rule, share: float
) -> tuple[dict[str, Weights], list[str]]:
    result, notes = dict(means), list[str]()
    for name in sorted({name for parts in sent for name in parts}):
        cohort = [parts[name] for parts in sent if name in parts]
        if not suffices(rule, len(cohort), share):
            who = f"{len(cohort)} client{'s' if len(cohort) > 1 else ''}"
            notes.append(f"{name}: {who} are too few for {rule}; mean")
        elif rule == "krum":
            result[name] = dict(cohort[krum(cohort, liars(len(cohort), share))])
        elif rule != "mean":
            cut = liars(len(cohort), share) if rule == "trimmed" else (len(cohort) - 1) // 2
            result[name] = coordinates(cohort, cut)
    return result, notes


def coordinates(cohort: Sequence[Mapping[str, Tensor]], cut: int) -> Weights:
    """Coordinate by coordinate the mean of what is left when the `cut` smallest and largest values are
    gone: the trimmed mean, and the median where one or two are left (Yin et al. 2018, Byzantine-Robust
    Distributed Learning, arXiv 1803.01498, definitions 1 and 2)."""
    from torch import stack

    result: Weights = {}
    for key, like in cohort[0].items():
        values = stack([part[key] for part in cohort]).sort(dim=0).values
        result[key] = values[cut : len(cohort) - cut].mean(dim=0).to(like.dtype)
    return result


def krum(cohort: Sequence[Mapping[str, Tensor]], lying: int) -> int:
    """The client nearest to its n - f - 2 nearest neighbours, by squared distance; f are `lying`
    (Blanchard et al. 2017, Machine Learning with Adversaries, section 4)."""
    from torch import cdist, float64, stack, zeros

    distances = zeros(len(cohort), len(cohort), dtype=float64)
    for key in cohort[0]:
        rows = stack([part[key].flatten() for part in cohort]).double()
        distances += cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    nearest = distances.sort(dim=1).values[:, 1 : len(cohort) - lying - 1]
    return int(nearest.sum(dim=1).argmin())
