"""Groups comparable runs: by setting, beta, scoring and datasets; a method is one entry of a group."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from statistics import fmean, stdev

from fcit.benchmark.settings import SETTINGS
from fcit.report.run_data import RunData, by_data
from fcit.report.style import LOOKS, SPARE_COLOURS, SPARE_MARKERS
from fcit.report.variants import differences, labels, repeats, usual_first

MOST_IN_FIGURES = 12
"""Groups with more entries leave variants of a method out of their figures."""


@dataclass(frozen=True)
class Spread:
    """A mean over repetitions, and their sample standard deviation (None for a single one)."""

    mean: float
    deviation: float | None = None


@dataclass(frozen=True)
class Entry:
    """One method as it was run in a group: its runs differ in nothing but the seed."""

    label: str
    slug: str
    colour: str
    marker: str
    runs: tuple[RunData, ...]
    variant: bool = False
    """Whether another entry shows the same method with its usual hyper-parameters."""

    @property
    def first(self) -> RunData:
        """The run with the smallest seed: what is shown where a mean makes no sense."""
        return self.runs[0]

    @property
    def reference(self) -> bool:
        return self.first.reference

    @property
    def unfinished(self) -> bool:
        return any(run.unfinished for run in self.runs)

    @property
    def status(self) -> str:
        """How far an unfinished entry came."""
        return f"unfinished: {len(self.first.matrix)} of {max(len(self.first.stages), 1)} stages"

    @property
    def name(self) -> str:
        """The label, with the status of an unfinished entry."""
        return f"{self.label} ({self.status})" if self.unfinished else self.label

    @property
    def seeds(self) -> str:
        return ", ".join(str(run.seed) for run in self.runs)

    @property
    def matrix(self) -> list[list[float | None]]:
        """The mean over the runs, cell by cell, of the stages that all of them have."""
        return [
            [mean(run.matrix[stage][column] for run in self.runs) for column in range(len(row))]
            for stage, row in enumerate(self.first.matrix)
            if all(stage < len(run.matrix) for run in self.runs)
        ]


@dataclass(frozen=True)
class Group:
    """Runs that may be compared: the same setting, beta, scoring and datasets in the same order, and no
    different data folders."""

    title: str
    slug: str
    setting: str
    beta: float | None
    scoring: str
    datasets: tuple[str, ...]
    entries: tuple[Entry, ...]
    differences: tuple[str, ...]
    """Keys outside the method in which the runs differ, each with its values."""
    data: str = ""
    """Their data folder and the order of their stages, where other groups have others."""

    @property
    def heading(self) -> str:
        """What the runs have in common, in a few words."""
        common = f"{self.setting} · β = {beta_text(self.beta)} · {self.scoring} scoring"
        return f"{common} · {self.data}" if self.data else common

    @property
    def learners(self) -> tuple[Entry, ...]:
        """The entries that learn stage by stage."""
        return tuple(entry for entry in self.entries if not entry.reference)

    @property
    def contest(self) -> tuple[Entry, ...]:
        """The entries that compete for the best: finished learners, but for those with fewer seeds than
        two others, as other seeds mean other data."""
        finished = tuple(entry for entry in self.learners if not entry.unfinished)
        counts = sorted((len(entry.runs) for entry in finished), reverse=True)
        second = counts[1] if len(counts) > 1 else 0
        return tuple(entry for entry in finished if len(entry.runs) >= second)

    @property
    def longest(self) -> Entry:
        """The entry with the most stages: it tells which datasets are seen when."""
        return max(self.entries, key=lambda entry: len(entry.matrix))

    @property
    def for_figures(self) -> Group:
        """The group as figures show it: of many entries, without the variants of a method."""
        if len(self.entries) <= MOST_IN_FIGURES:
            return self
        return replace(self, entries=tuple(entry for entry in self.entries if not entry.variant))

    def mean_by_dataset(self, field: str) -> dict[str, float]:
        """`chance` or `zero_shot` by dataset, in percent: the mean over the group's runs."""
        tables = [getattr(run, field) for entry in self.entries for run in entry.runs]
        means = {name: mean(table.get(name) for table in tables) for name in self.datasets}
        return {name: value for name, value in means.items() if value is not None}


def group_runs(runs: Sequence[RunData]) -> list[Group]:
    """Comparable runs together, settings in the benchmark's order; reference points come last."""
    comparable: dict[tuple[str, float | None, str, tuple[str, ...]], list[RunData]] = {}
    for run in sorted(runs, key=_order):
        comparable.setdefault((run.setting, run.beta, run.scoring, run.datasets), []).append(run)
    orders = Counter((*about, frozenset(datasets)) for *about, datasets in comparable)
    groups: list[Group] = []
    taken = Counter[str]()
    for (setting, beta, scoring, datasets), everywhere in comparable.items():
        parts = by_data(everywhere)
        for members in parts:
            title = f"{setting}, beta {beta_text(beta)}, {scoring} scoring"
            slug = _slug(f"{setting}-{beta_text(beta)}-{scoring}")
            taken[slug] += 1
            root = members[0].setting_of("data", "root")
            place = f"data.root = {root}" if root else "the mini suite"
            data = place if len(parts) > 1 else ""
            if orders[setting, beta, scoring, frozenset(datasets)] > 1:
                order = next((run.stages for run in members if not run.reference), datasets)
                data += f"{', ' if data else ''}order {', '.join(order)}"
            if data or taken[slug] > 1:
                title += f" ({data or ', '.join(datasets)})"
            slug += f"-{taken[slug]}" if taken[slug] > 1 else ""
            entries, differing = _entries(members), differences(members)
            groups.append(
                Group(title, slug, setting, beta, scoring, datasets, entries, differing, data)
            )
    return groups


def _order(run: RunData) -> tuple[int, float]:
    return list(SETTINGS).index(run.setting) if run.setting in SETTINGS else 9, run.beta or 0.0


def beta_text(beta: float | None) -> str:
    """Beta as the benchmark writes it: 0.5, 1.0, 5.0."""
    return "–" if beta is None else str(float(beta))


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what was measured; None when nothing was."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and spread of what was measured; None when nothing was."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(fmean(known), stdev(known) if len(known) > 1 else None)


def _entries(runs: Sequence[RunData]) -> tuple[Entry, ...]:
    """One entry per method and configuration; a repeated seed is an entry of its own."""
    order = list(LOOKS)
    methods = {run.method: run.reference for run in runs}
    rank = {name: (methods[name], order.index(name) if name in order else 99) for name in methods}
    entries: list[Entry] = []
    colours, markers = cycle(SPARE_COLOURS), cycle(SPARE_MARKERS)
    for method in sorted(methods, key=rank.__getitem__):
        variants: list[list[RunData]] = []
        own = (run for run in runs if run.method == method)
        for run in sorted(own, key=lambda run: run.seed):
            repeated = next((variant for variant in variants if repeats(run, variant)), None)
            if repeated is None:
                variants.append([run])
            else:
                repeated.append(run)
        variants = usual_first(variants)
        names = labels(method, variants)
        for number, (variant, label) in enumerate(zip(variants, names, strict=True)):
            known = LOOKS.get(method) if number == 0 else None
            colour, marker = known or (next(colours), next(markers))
            slug = _slug(method) + (f"-{number + 1}" if len(variants) > 1 else "")
            entries.append(Entry(label, slug, colour, marker, tuple(variant), number > 0))
    return tuple(entries)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "x"
