"""The gap between the base model and centralised training, taken apart into the steps of Last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from fcit.report.groups import Entry, Group, Spread, mean, spread
from fcit.report.style import INK, LINE, PAPER, QUIET, new_figure, shorten, styled
from fcit.report.tables import format_spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTINUAL = frozenset({"stages", "one model", "federated"})
POINTS = {
    "joint": frozenset({"one model", "federated"}),
    "individual": frozenset({"federated"}),
    "individual_central": frozenset[str](),
    "multitask": frozenset({"one model"}),
}
"""The reference points in the picture's order, and the restrictions that each still has."""

LIFTED = {
    "stages": "price of stages (forgetting)",
    "one model": "price of one model for all datasets",
    "federated": "price of federating",
}
TAUGHT = "what the datasets teach one another"
"""The step back from a model per dataset to one model."""

COLOURS = {"stages": "#c8587f", "one model": "#c9a227", "federated": "#3aa6a0"}
TRAINED = "#8794a3"


@dataclass(frozen=True)
class Rung:
    """One kind of training: the Last of its runs, and the step to it from the rung before."""

    label: str
    last: Spread
    step: Spread | None
    """In points; over seeds where both rungs have the same."""
    meaning: str
    colour: str


def rungs(group: Group) -> list[Rung]:
    """From the base model over finetune, the best method that keeps no old data, and the reference
    points to multitask, as far as they are among the group's finished runs; [] where no trained reference
    point is."""
    usual = {entry.first.method: entry for entry in group.entries if not entry.variant}
    points = {name: usual[name] for name in POINTS if name in usual and not usual[name].unfinished}
    if not points:
        return []
    base = {
        run.seed: fmean(run.zero_shot.values())
        for entry in group.entries
        for run in entry.runs
        if run.zero_shot
    }
    obeying = [one for one in group.contest if not getattr(one.first.method_used, "replays", False)]
    best = max(obeying, key=lambda entry: _mean(_last(entry)), default=None)
    learners = [usual.get("finetune"), best] if best is not usual.get("finetune") else [best]
    found = [_rung("base model", base, {}, "", TRAINED)] if base else []
    before, had = base, None
    for entry in (*(one for one in learners if one and not one.unfinished), *points.values()):
        has, now = POINTS.get(entry.first.method, CONTINUAL), _last(entry)
        meaning, colour = _step(entry, had, has)
        found.append(_rung(entry.label, now, before, meaning, colour))
        before, had = now, has
    return found


@styled()
def gap(rungs: list[Rung]) -> Figure:
    """Last of every rung as a bar, the step from the bar above in colour (hatched: down), and named."""
    figure = new_figure(9.6, 0.9 + 0.42 * len(rungs))
    axes = figure.add_subplot()
    before = 0.0
    for y, rung in enumerate(rungs):
        low, high = sorted((before if rung.step else 0.0, rung.last.mean))
        axes.barh(y, low, height=0.62, color=LINE)
        down = rung.step is not None and rung.last.mean < before
        axes.barh(
            y,
            high - low,
            left=low,
            height=0.62,
            color=PAPER if down else rung.colour,
            edgecolor=rung.colour,
            hatch="////" if down else None,
            linewidth=0.8,
        )
        if rung.last.deviation:
            axes.errorbar(rung.last.mean, y, xerr=rung.last.deviation, color=INK, elinewidth=1)
        if y:
            axes.plot([before, before], [y - 0.69, y + 0.31], color=QUIET, linewidth=0.8)
        end = max(high, rung.last.mean + (rung.last.deviation or 0.0)) + 1.2
        axes.text(end, y, format_spread(rung.last, 1), va="center", color=INK, fontsize=8.5)
        if rung.step:
            words = f"{format_spread(rung.step, 1, '+').replace('-', '−')}  {rung.meaning}"
            axes.text(1.02, y, words, va="center", transform=axes.get_yaxis_transform())
        before = rung.last.mean
    axes.set_yticks(range(len(rungs)), [shorten(rung.label, 32) for rung in rungs])
    axes.set(xlabel="Last, %", xlim=(0, 100), ylim=(len(rungs) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure


def _rung(
    label: str, now: Mapping[int, float], before: Mapping[int, float], meaning: str, colour: str
) -> Rung:
    step = None
    if before:
        same = now.keys() == before.keys()
        step = spread(now[seed] - before[seed] for seed in now) if same else None
        step = step or Spread(_mean(now) - _mean(before))
    last = spread(now.values())
    assert last is not None
    return Rung(label, last, step, meaning, colour)


def _step(entry: Entry, had: frozenset[str] | None, has: frozenset[str]) -> tuple[str, str]:
    """What the step to an entry means, and its colour."""
    if had is None:
        return f"learned and kept by {entry.first.method}", TRAINED
    if had == has:
        return f"saved by {shorten(entry.label, 32)}", entry.colour
    changed = [name for name in LIFTED if name in had and name not in has]
    words = [LIFTED[name] for name in changed]
    if "one model" in has - had:
        words, changed = [*words, TAUGHT], [*changed, "one model"]
    return " + ".join(words), COLOURS[changed[0]]


def _last(entry: Entry) -> dict[int, float]:
    return {run.seed: run.last for run in entry.runs if run.last is not None}


def _mean(values: Mapping[int, float]) -> float:
    return mean(values.values()) or 0.0
