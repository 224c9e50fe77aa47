"""The targets of the mini suite. Each is checked against the finished runs, and none is skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from measures import Measured, Runs, mean, show, spearman

PUBLISHED = {
    "task-hom": {
        "zeroshot": 29.08, "finetune": 47.20, "ewc": 47.92, "olora": 49.87, "moelora": 49.02,
        "disco": 56.22, "multitask": 66.60,
    },
    "task-het": {"finetune": 57.96, "olora": 59.74, "moelora": 59.14, "disco": 63.25},
}  # fmt: skip
"""Last at beta = 1 with LLaVA-1.5-7B on the official datasets (Guo et al. 2025)."""

MINUTES = {"tiny": 2, "small": 15, "full": 60}
"""How long a method may take at a size."""
ZERO_SHOT = 12.0
INDIVIDUAL, ABOVE_CHANCE, TWELVE = 75.0, 15.0, 12
LEARNED_SHARE = 80.0
FORGETTING = 10.0
OVER_FINETUNE = 5.0


@dataclass(frozen=True)
class Target:
    """A target, where it was checked, the figure, and whether it is met (None: it cannot be judged)."""

    demand: str
    where: str
    figure: str
    met: bool | None

    def line(self) -> str:
        """The target as one line that begins with the verdict."""
        verdict = {True: "PASS", False: "FAIL", None: "----"}[self.met]
        return f"{verdict}  {self.where}: {self.demand}: {self.figure}"


def targets(runs: Runs) -> list[Target]:
    """All targets, setting by setting; figures are means over seeds, in percent or points."""
    found = [target for group in runs.groups() for target in _group(runs, *group)]
    return [*found, *_times(runs)]


def _group(runs: Runs, setting: str, size: str) -> Iterator[Target]:
    where = f"{setting} {size}"
    of = runs.methods(setting, size)
    some = next(iter(of.values()))
    zero = fmean(mean(one.zero_shot) or 0.0 for one in some)
    figure = f"{zero:.2f} over {len(some[0].zero_shot)} datasets"
    yield Target(f"zero-shot at least {ZERO_SHOT:g}", where, figure, zero >= ZERO_SHOT)
    yield from _individual(of.get("individual", []), where)

    last = {method: fmean(one.last for one in each) for method, each in of.items()}
    disco, finetune, multitask = (last.get(name) for name in ("disco", "finetune", "multitask"))
    learned, alone = _mean(of.get("disco", []), "learned"), _mean(of.get("individual", []), "final")
    share = 100 * learned / alone if learned is not None and alone else None
    yield _target(
        f"DISCO just learned at least {LEARNED_SHARE:g} % of individual",
        where,
        share is not None and share >= LEARNED_SHARE,
        {"DISCO just learned": learned, "individual": alone, "share": share},
    )
    yield _target(
        "finetune keeps something: Last between zero-shot and DISCO",
        where,
        finetune is not None and disco is not None and zero < finetune < disco,
        {"zero-shot": zero, "finetune": finetune, "DISCO": disco},
    )
    lost = _mean(of.get("finetune", []), "forgetting")
    yield _target(
        f"finetune forgets at least {FORGETTING:g} points",
        where,
        lost is not None and lost >= FORGETTING,
        {"forgetting": lost},
    )
    ahead = disco - finetune if disco is not None and finetune is not None else None
    yield _target(
        f"DISCO's Last at least {OVER_FINETUNE:g} points over finetune's",
        where,
        ahead is not None and ahead >= OVER_FINETUNE,
        {"DISCO": disco, "finetune": finetune, "difference": ahead},
    )
    yield _target(
        "DISCO's Last under multitask's",
        where,
        disco is not None and multitask is not None and disco < multitask,
        {"DISCO": disco, "multitask": multitask},
    )
    routed = {
        "all prompts": _mean(of.get("disco", []), "routing"),
        "seen wording": _mean(of.get("disco", []), "routing_seen"),
        "unseen wording": _mean(of.get("disco", []), "routing_unseen"),
    }
    told = routed["all prompts"] is not None and routed["unseen wording"] is not None
    yield replace(
        _target("DISCO's routing under paraphrase", where, told, routed), met=None
    )  # a figure, and no target
    if setting in PUBLISHED:
        rho, count = spearman(last, PUBLISHED[setting])
        figure = f"{rho:.2f} over {count} methods (not a target)" if count > 1 else "not measured"
        yield Target("rank correlation of Last with the published table", where, figure, None)


def _individual(found: Sequence[Measured], where: str) -> Iterator[Target]:
    """Individual training learns all of its datasets."""
    average = _mean(found, "final")
    count = len(found[0].final) if found else 0
    demand, figures = (
        f"individual at least {INDIVIDUAL:g} on average over the twelve",
        {f"mean over {count} datasets": average},
    )
    if average is None or count == TWELVE:
        yield _target(demand, where, average is not None and average >= INDIVIDUAL, figures)
    else:
        yield Target(demand, where, f"{average:.2f} over {count} of them (not the target)", None)
    if not found:
        return
    above = {
        name: fmean(one.final[name] - one.chance[name] for one in found) for name in found[0].final
    }
    near = [f"{name} {points:+.1f}" for name, points in above.items() if points < ABOVE_CHANCE]
    least = min(above, key=above.__getitem__)
    figure = f"below it: {', '.join(near)}" if near else f"least: {least} {above[least]:+.1f}"
    demand = f"individual at least {ABOVE_CHANCE:g} points over chance on every dataset"
    yield Target(demand, where, figure, not near)


def _times(runs: Runs) -> Iterator[Target]:
    """The longest run of every size, among those that ran alone on the machine."""
    for size in dict.fromkeys(one.size for one in runs.all):
        alone = [one for one in runs.all if one.size == size and one.clock.jobs == 1]
        demand = f"under {MINUTES[size]} minutes a method"
        if not alone:
            yield Target(demand, size, "no run had the machine to itself (--jobs 1)", None)
            continue
        longest = max(alone, key=lambda one: one.clock.seconds)
        figure = f"longest of {len(alone)}: {longest}, {longest.clock.seconds:.0f} seconds"
        if not longest.clock.whole:
            figure += " at least (it was interrupted)"
        yield Target(demand, size, figure, longest.clock.seconds <= 60 * MINUTES[size])


def _target(demand: str, where: str, met: bool, values: dict[str, float | None]) -> Target:
    """A target that is judged only if all of its figures exist."""
    if any(value is None for value in values.values()):
        lacking = ", ".join(name for name, value in values.items() if value is None)
        known = {name: value for name, value in values.items() if value is not None}
        figure = "; ".join([*(f"{n} {show([v])}" for n, v in known.items()), f"no {lacking}"])
        return Target(demand, where, figure, None)
    return Target(demand, where, ", ".join(f"{n} {show([v])}" for n, v in values.items()), met)


def _mean(found: Sequence[Measured], field: str) -> float | None:
    """A figure's mean over seeds of the mean over datasets."""
    known = [value for one in found if (value := mean(getattr(one, field))) is not None]
    return fmean(known) if known else None
