"""Robust aggregation within the cohort of each subspace: a few malicious clients cannot steer it.

The robust rules ignore sample counts, which clients could forge. A cohort that is too small for a rule is
averaged, with a note in the log.
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
"""How a cohort's updates are aggregated: see `trimmed_mean` and `krum`."""


def byzantine(count: int, share: float) -> int:
    """How many of `count` clients are assumed malicious: the share, rounded up."""
    return math.ceil(round(count * share, 9))  # 25 * 0.28 is 7.000000000000001


def suffices(rule: Rule, count: int, share: float) -> bool:
    """Whether a cohort is large enough for a rule: an honest majority, and for Krum 2 f + 3 clients
    (Blanchard et al. 2017, proposition 4.2)."""
    f = byzantine(count, share)
    return count >= {"mean": 1, "median": 3, "trimmed": max(3, 2 * f + 1), "krum": 2 * f + 3}[rule]


def aggregate(
    after: State, updates: Sequence[Update], rule: Rule, share: float
) -> tuple[State, list[str]]:
    """`after` with the rule's aggregate of every adapter and extra that came back, and a note for each
    cohort that was too small. share: of a cohort's clients, how many may be malicious."""
    adapters, notes = _each(after.adapters, [update.adapters for update in updates], rule, share)
    extras, more = _each(after.extras, [update.extras for update in updates], rule, share)
    return replace(after, adapters=adapters, extras=extras), notes + more


def _each(
    means: Mapping[str, Weights], sent: Sequence[Parts], rule: Rule, share: float
) -> tuple[dict[str, Weights], list[str]]:
    result, notes = dict(means), list[str]()
    for name in sorted({name for parts in sent for name in parts}):
        cohort = [parts[name] for parts in sent if name in parts]
        if not suffices(rule, len(cohort), share):
            clients = f"{len(cohort)} client{'s' if len(cohort) > 1 else ''}"
            notes.append(f"{name}: {clients} are too few for {rule}; mean")
        elif rule == "krum":
            chosen = cohort[krum(cohort, byzantine(len(cohort), share))]
            result[name] = {**means[name], **chosen}
        elif rule != "mean":
            cut = byzantine(len(cohort), share) if rule == "trimmed" else (len(cohort) - 1) // 2
            result[name] = means[name] | trimmed_mean(cohort, cut)
    return result, notes


def trimmed_mean(cohort: Sequence[Mapping[str, Tensor]], cut: int) -> Weights:
    """The coordinate-wise mean without the `cut` smallest and largest values; the median where one or two
    values are left (Yin et al. 2018, Byzantine-Robust Distributed Learning, arXiv 1803.01498, definitions
    1 and 2)."""
    from torch import stack

    result: Weights = {}
    for key, like in cohort[0].items():
        values = stack([part[key] for part in cohort]).sort(dim=0).values
        result[key] = values[cut : len(cohort) - cut].mean(dim=0).to(like.dtype)
    return result


def krum(cohort: Sequence[Mapping[str, Tensor]], malicious: int) -> int:
    """The client nearest to its n - f - 2 nearest neighbours, by squared distance; f is `malicious`
    (Blanchard et al. 2017, Machine Learning with Adversaries, section 4)."""
    from torch import cdist, float64, stack, zeros

    distances = zeros(len(cohort), len(cohort), dtype=float64)
    for key in cohort[0]:
        rows = stack([part[key].flatten() for part in cohort]).double()
        distances += cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    nearest = distances.sort(dim=1).values[:, 1 : len(cohort) - malicious - 1]
    return int(nearest.sum(dim=1).argmin())
