"""Which runs repeat one experiment with another seed, and what sets others apart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fcit.recipe.keys import FREE_TO_CHANGE, flat
from fcit.report.run_data import RunData

_SAME_NUMBERS = {
    "seed",
    "data.root",
    "data.images",
    *FREE_TO_CHANGE,
    "model.cache_features",
    "evaluation.batch_size",
}
"""Keys in which repetitions of one experiment may differ: the seed, and what changes no number."""


def repeats(run: RunData, variant: Sequence[RunData]) -> bool:
    """Whether a run repeats a variant's runs with another seed."""
    if run.unfinished or any(run.seed == other.seed or other.unfinished for other in variant):
        return False
    return _experiment(run) == _experiment(variant[0])


def _experiment(run: RunData) -> dict[str, Any]:
    """The keys of a run's configuration that may change its numbers, but the seed."""
    keys = flat({key: value for key, value in run.config.items() if key != "versions"})
    return {key: value for key, value in keys.items() if key not in _SAME_NUMBERS}


def usual_first(variants: list[list[RunData]]) -> list[list[RunData]]:
    """The variants, the one most like all others (of equals, with the most runs) at the beginning."""
    tables = [_experiment(variant[0]) for variant in variants]

    def distance(at: int) -> tuple[int, int]:
        return sum(len(_changed(tables[at], table)) for table in tables), -len(variants[at])

    usual = min(range(len(variants)), key=distance)
    return [variants[usual], *variants[:usual], *variants[usual + 1 :]]


def labels(method: str, variants: Sequence[Sequence[RunData]]) -> list[str]:
    """The method's name, and for each variant what sets it apart from the first.

    Variants of one configuration are seeds that are not finished, named after the first by their seed, or
    repeat a seed, and are all named by their folder.
    """
    usual, *_ = tables = [_experiment(variant[0]) for variant in variants]
    told = [
        ", ".join(f"{key.removeprefix('method.')}={table[key]}" for key in _changed(table, usual))
        for table in tables
    ]
    names = [""] * len(told)
    for text in {text for text in told if told.count(text) > 1}:
        places = [at for at, other in enumerate(told) if other == text]
        seeds = [run.seed for at in places for run in variants[at]]
        if len(set(seeds)) == len(seeds):
            for at in places[1:]:
                names[at] = f"seed {variants[at][0].seed}"
        else:
            folders = [variants[at][0].path.resolve() for at in places]
            shared = Path(os.path.commonpath(folders))
            for at, folder in zip(places, folders, strict=True):
                names[at] = folder.relative_to(shared).as_posix()
    apart = ["; ".join(filter(None, pair)) for pair in zip(told, names, strict=True)]
    return [f"{method} ({text})" if text else method for text in apart]


def _changed(table: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """The keys of a table that have another value, or none, in the usual one."""
    return [key for key in _varying((table, usual)) if key in table]


def differences(runs: Sequence[RunData]) -> tuple[str, ...]:
    """Settings outside the method in which runs differ, each as one sentence. Of reference points, which
    train otherwise, only data, model and evaluation are compared."""
    learners = [run for run in runs if not run.reference]
    pairs = [(run, _experiment(run)) for run in runs]
    keys = _varying([table for _, table in pairs])
    lines: list[str] = []
    for key in (key for key in keys if not key.startswith("method.")):
        for_all = key.startswith(("data.", "model.", "evaluation.")) or not learners
        values = [
            (run.method, table.get(key, "absent"))
            for run, table in pairs
            if for_all or not run.reference
        ]
        if len({repr(value) for _, value in values}) > 1:
            told = dict.fromkeys(f"{method} {value}" for method, value in values)
            lines.append(f"{key}: {', '.join(told)}")
    return tuple(lines)


def _varying(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all tables."""
    keys = dict.fromkeys(key for table in tables for key in table)
    return [key for key in keys if len({repr(table.get(key)) for table in tables}) > 1]
