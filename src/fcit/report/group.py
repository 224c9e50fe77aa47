"""Puts like runs together: one group per comparable experiment, one entry per method in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from fcit.report.looks import COLOURS, MARKERS, SPARE, SPARE_MARKERS
from fcit.report.read import REFERENCES, Run

SETTINGS = ("task-hom", "task-het", "cap-hom", "cap-het")
CROWD = 12
"""How many methods and variants a figure can show."""

_SAME_NUMBERS = {
    "seed",
    "versions",
    "data.root",
    "data.images",
    "federation.engine",
    "federation.workers",
    "federation.min_clients",
    "federation.deadline",
    "model.cache_features",
    "evaluation.batch_size",
    "tracking.to",
    "tracking.project",
}
"""Settings that make no other experiment: a seed is a repetition, the rest change no number."""


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
    runs: tuple[Run, ...]
    variant: bool = False
    """Whether it stands beside another entry of the same method."""

    @property
    def first(self) -> Run:
        """The run with the smallest seed: what is shown where a mean makes no sense."""
        return self.runs[0]

    @property
    def reference(self) -> bool:
        return self.first.reference

    @property
    def unfinished(self) -> bool:
        return any(run.unfinished for run in self.runs)

    @property
    def matrix(self) -> list[list[float | None]]:
        """The mean over the runs, cell by cell, of the stages that all of them have."""
        return [
            [_mean(run.matrix[stage][at] for run in self.runs) for at in range(len(row))]
            for stage, row in enumerate(self.first.matrix)
            if all(stage < len(run.matrix) for run in self.runs)
        ]


@dataclass(frozen=True)
class Group:
    """Runs that may be compared: the same setting, beta, scoring and datasets in the same order."""

    title: str
    slug: str
    setting: str
    beta: float | None
    scoring: str
    datasets: tuple[str, ...]
    entries: tuple[Entry, ...]
    differences: tuple[str, ...]

    @property
    def learners(self) -> tuple[Entry, ...]:
        """The entries that learn stage by stage."""
        return tuple(entry for entry in self.entries if not entry.reference)

    @property
    def contest(self) -> tuple[Entry, ...]:
        """Who competes for the best: finished learners, of those the ones with the most seeds if there
        are two such, as a mean over other seeds is one over other data too."""
        done = tuple(one for one in self.learners if not one.unfinished)
        most = max((len(one.runs) for one in done), default=0)
        full = tuple(one for one in done if len(one.runs) == most)
        return full if len(full) > 1 else done

    @property
    def pilot(self) -> Entry:
        """The entry with the most stages: it says what is seen when."""
        return max(self.entries, key=lambda entry: len(entry.matrix))

    @property
    def drawn(self) -> Group:
        """The group as figures show it: of many entries, without a method's further variants."""
        few = len(self.entries) <= CROWD
        kept = self.entries if few else tuple(one for one in self.entries if not one.variant)
        return replace(self, entries=kept)

    def level(self, name: str) -> dict[str, float]:
        """`chance` or `zero_shot` per dataset, in percent: mean over the group's runs."""
        runs = [run for entry in self.entries for run in entry.runs]
        tables: list[Mapping[str, float]] = [getattr(run, name) for run in runs]
        found = {one: _mean(table.get(one) for table in tables) for one in self.datasets}
        return {one: value for one, value in found.items() if value is not None}


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Comparable runs together, settings in the benchmark's order; reference points come last."""
    found: dict[tuple[object, ...], list[Run]] = {}
    for run in sorted(runs, key=_order):
        found.setdefault((run.setting, run.beta, run.scoring, run.datasets), []).append(run)
    groups: list[Group] = []
    for members in found.values():
        lead = members[0]
        name = f"{lead.setting}, beta {beta_text(lead.beta)}, {lead.scoring} scoring"
        twins = [other for other in groups if other.title.split(" (")[0] == name]
        title = f"{name} ({', '.join(lead.datasets)})" if twins else name
        slug = _slug(f"{lead.setting}-{beta_text(lead.beta)}-{lead.scoring}")
        groups.append(
            Group(
                title=title,
                slug=f"{slug}-{len(twins) + 1}" if twins else slug,
                setting=lead.setting,
                beta=lead.beta,
                scoring=lead.scoring,
                datasets=lead.datasets,
                entries=_entries(members),
                differences=_differences(members),
            )
        )
    return groups


def _order(run: Run) -> tuple[int, float]:
    return SETTINGS.index(run.setting) if run.setting in SETTINGS else 9, run.beta or 0.0


def beta_text(beta: float | None) -> str:
    """Beta as the benchmark writes it: 0.5, 1.0, 5.0."""
    return "–" if beta is None else str(float(beta))


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and spread of what was measured; None when nothing was."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(fmean(known), stdev(known) if len(known) > 1 else None)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration as {"section.key": value}."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def _entries(runs: Sequence[Run]) -> tuple[Entry, ...]:
    """One entry per method and configuration; a repeated seed is an entry of its own."""
    order = list(COLOURS)
    methods = list(dict.fromkeys(run.method for run in runs))
    methods.sort(key=lambda name: (name in REFERENCES, order.index(name) if name in order else 99))
    entries: list[Entry] = []
    spare, marks = list(SPARE), list(SPARE_MARKERS)
    for method in methods:
        found: list[list[Run]] = []
        for run in sorted((one for one in runs if one.method == method), key=lambda one: one.seed):
            home = next((v for v in found if _belongs(run, v)), None)
            if home is None:
                found.append([run])
            else:
                home.append(run)
        variants = _base_first(found)
        labels = _labels(method, variants)
        for number, (variant, label) in enumerate(zip(variants, labels, strict=True)):
            own = COLOURS.get(method) if number == 0 else None
            if own is None:
                own = spare.pop(0)
                spare.append(own)
            mark = MARKERS.get(method) if number == 0 else None
            if mark is None:
                mark = marks.pop(0)
                marks.append(mark)
            slug = _slug(method) + (f"-{number + 1}" if len(variants) > 1 else "")
            entries.append(Entry(label, slug, own, mark, tuple(variant), number > 0))
    return tuple(entries)


def _belongs(run: Run, variant: Sequence[Run]) -> bool:
    if run.unfinished or any(run.seed == other.seed or other.unfinished for other in variant):
        return False
    return _experiment(run) == _experiment(variant[0])


def _experiment(run: Run) -> dict[str, Any]:
    known = flat({key: value for key, value in run.config.items() if key != "versions"})
    return {key: value for key, value in known.items() if key not in _SAME_NUMBERS}


def _base_first(variants: Sequence[Sequence[Run]]) -> list[Sequence[Run]]:
    """The variants, the one most like all others (of equals, with the most runs) at the beginning."""
    tables = [_experiment(variant[0]) for variant in variants]
    base = min(
        range(len(tables)),
        key=lambda at: (sum(len(_apart(tables[at], one)) for one in tables), -len(variants[at])),
    )
    return [variants[base], *variants[:base], *variants[base + 1 :]]


def _labels(method: str, variants: Sequence[Sequence[Run]]) -> list[str]:
    """The method's name, and for each variant what sets it apart from the first."""
    first, *_ = tables = [_experiment(variant[0]) for variant in variants]
    labels = [
        ", ".join(f"{key.removeprefix('method.')}={table[key]}" for key in _apart(table, first))
        for table in tables
    ]
    if len(set(labels)) < len(labels):
        places = [variant[0].path.resolve() for variant in variants]
        shared = Path(os.path.commonpath(places))
        parts = [path.relative_to(shared).as_posix() for path in places]
        labels = [f"{a}; {b}" if a else b for a, b in zip(labels, parts, strict=True)]
    return [f"{method} ({label})" if label else method for label in labels]


def _apart(table: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The settings of a table that another has otherwise."""
    return [key for key in _varying((table, other)) if key in table]


def _differences(runs: Sequence[Run]) -> tuple[str, ...]:
    """Settings outside the method in which the learning runs differ, each as one sentence."""
    learners = [run for run in runs if not run.reference] or list(runs)
    tables = [_experiment(run) for run in learners]
    lines: list[str] = []
    for key in _varying(tables):
        if not key.startswith("method."):
            values = dict.fromkeys(
                f"{run.method} {table.get(key, 'absent')}"
                for run, table in zip(learners, tables, strict=True)
            )
            lines.append(f"{key}: {', '.join(values)}")
    return tuple(lines)


def _varying(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for table in tables for key in table)
    return [key for key in keys if len({repr(table.get(key)) for table in tables}) > 1]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "x"
