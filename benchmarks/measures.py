"""Figures of finished runs of the mini suite, and their Markdown table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean

from fcit import suite as mini
from fcit.benchmark import metrics
from fcit.recipe.config import load
from fcit.recipe.sections import SIZES
from fcit.report.groups import group_runs, spread
from fcit.report.run_data import RunData, predictions, read_runs
from fcit.report.tables import format_spread
from fcit.rounds.evaluate import adapters_by_dataset, routing
from fcit.rounds.runfolder import RunFolder
from fcit.runs.sweep import Clock, SweepRun, clock
from fcit.types import FcitError
from fcit.worker.experiment import Experiment

Percents = Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """A finished run's figures, by dataset in percent; empty if the method has none."""

    setting: str
    size: str
    method: str
    seed: int
    last: float
    final: Percents
    learned: Percents
    forgetting: Percents
    zero_shot: Percents
    chance: Percents
    routing: Percents = field(default_factory=dict)
    routing_seen: Percents = field(default_factory=dict)
    routing_unseen: Percents = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    def __str__(self) -> str:
        return f"{self.setting} {self.size} seed {self.seed} {self.method}"


class Runs:
    """All finished runs, by setting, size and method."""

    def __init__(self, measured: Sequence[Measured]):
        self.all = list(measured)

    def groups(self) -> list[tuple[str, str]]:
        """The settings and sizes with at least one run."""
        return list(dict.fromkeys((one.setting, one.size) for one in self.all))

    def methods(self, setting: str, size: str) -> dict[str, list[Measured]]:
        """The runs of a setting at a size, by method."""
        found: dict[str, list[Measured]] = {}
        for one in self.all:
            if (one.setting, one.size) == (setting, size):
                found.setdefault(one.method, []).append(one)
        return found


def read(paths: Sequence[Path]) -> Runs:
    """The finished runs below some folders. Of a method with several configurations, the usual one.

    Raises FcitError naming a file that is missing or broken, or a run of another suite.
    """
    runs = [run for run in read_runs(paths) if not run.unfinished]
    for run in runs:
        if run.setting_of("data", "size") not in SIZES:
            raise FcitError(f"{run.path}: is no run of the mini suite, at one of its sizes")
    sizes = dict.fromkeys(run.setting_of("data", "size") for run in runs)
    found: list[Measured] = []
    for size in sizes:
        groups = group_runs([run for run in runs if run.setting_of("data", "size") == size])
        entries = [entry for group in groups for entry in group.entries if not entry.variant]
        found += [measure(run, size) for entry in entries for run in entry.runs]
    return Runs(found)


def measure(run: RunData, size: str) -> Measured:
    """A finished run's figures. Routing by wording is empty where the run's answers were not kept."""
    several = len(run.matrix) > 1
    final = dict(zip(run.datasets, run.matrix[-1], strict=True)) if run.matrix else run.zero_shot
    return Measured(
        run.setting,
        size,
        run.method,
        run.seed,
        run.last or 0.0,
        {name: value for name, value in final.items() if value is not None},
        metrics.just_learned(run.matrix, run.datasets) if several else {},
        run.forgetting if several else {},
        run.zero_shot,
        run.chance,
        run.routing,
        *(_routing(run, unseen) if run.routing else {} for unseen in (False, True)),
        clock(SweepRun(run.setting, run.method, run.seed, Path(), (), run.path)),
    )


def _routing(run: RunData, unseen: bool) -> dict[str, float]:
    """Routing of the test prompts whose wording does (or does not) occur in training, by dataset."""
    experiment = Experiment(load(RunFolder(run.path).config))
    tasks = [task for stage in experiment.training_setting.stages for task in stage.tasks]
    own = adapters_by_dataset(RunFolder(run.path).trainers(), tasks)
    found: dict[str, float] = {}
    for name in run.datasets:
        kept = [row for row in predictions(run, name) if is_unseen(name, row.prompt) is unseen]
        if (share := routing(kept, own.get(name, ()))) is not None:
            found[name] = share
    return found


def is_unseen(name: str, prompt: str) -> bool | None:
    """Whether a prompt of a mini dataset has a wording that only the test uses; None if the wording is
    unknown."""
    return next(
        (unseen for form, unseen in _forms(name) if form.fullmatch(prompt.partition("\n")[0])), None
    )


@cache
def _forms(name: str) -> list[tuple[re.Pattern[str], bool]]:
    """The wordings of a dataset's generator as patterns, and whether only the test uses them."""
    forms: list[tuple[re.Pattern[str], bool]] = []
    for pool in _pools(vars(mini.GENERATORS[name]).values()):
        for wordings, unseen in ((pool.seen, False), (pool.unseen, True)):
            for text in wordings:
                parts = re.split(r"\{\w*\}", text.partition("\n")[0])
                forms.append((re.compile(".+?".join(map(re.escape, parts))), unseen))
    return sorted(forms, key=lambda form: -len(form[0].pattern))


def _pools(values) -> Iterator:
    for value in values:
        if hasattr(value, "seen") and hasattr(value, "unseen") and not isinstance(value, type):
            yield value
        elif isinstance(value, dict):
            yield from _pools(value.values())
        elif isinstance(value, list | tuple):
            yield from _pools(value)


def mean(percents: Percents) -> float | None:
    """The mean over datasets; None if there are none."""
    return fmean(percents.values()) if percents else None


def show(values: Sequence[float | None], digits: int = 2) -> str:
    """Mean, and with several seeds the sample standard deviation; a dash if nothing was measured."""
    return format_spread(spread(values), digits)


def spearman(ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[float, int]:
    """Rank correlation over the common methods (equal values share a rank), and their number."""
    both = sorted(ours.keys() & theirs.keys())
    if len(both) < 2:
        return float("nan"), len(both)
    a, b = (_ranks([table[name] for name in both]) for table in (ours, theirs))
    centred = [(x - fmean(a), y - fmean(b)) for x, y in zip(a, b, strict=True)]
    scale = (sum(x * x for x, _ in centred) * sum(y * y for _, y in centred)) ** 0.5
    return (sum(x * y for x, y in centred) / scale if scale else float("nan")), len(both)


def _ranks(values: Sequence[float]) -> list[float]:
    return [sum(v < one for v in values) + (values.count(one) + 1) / 2 for one in values]


def datasets_table(runs: Runs, setting: str, size: str) -> str:
    """One line per dataset, in percent: chance and reference points, then the methods."""
    of = runs.methods(setting, size)
    some = next(iter(of.values()))
    columns = [
        ("chance", some, "chance"),
        ("zero-shot", some, "zero_shot"),
        ("individual", of.get("individual", []), "final"),
        ("multitask", of.get("multitask", []), "final"),
        ("DISCO just learned", of.get("disco", []), "learned"),
        ("DISCO last", of.get("disco", []), "final"),
        ("finetune just learned", of.get("finetune", []), "learned"),
        ("finetune last", of.get("finetune", []), "final"),
        ("routing", of.get("disco", []), "routing"),
        ("seen wording", of.get("disco", []), "routing_seen"),
        ("unseen wording", of.get("disco", []), "routing_unseen"),
    ]
    rows = [
        [name, *(show([getattr(one, f).get(name) for one in found], 1) for _, found, f in columns)]
        for name in some[0].chance
    ]
    means = [show([mean(getattr(one, f)) for one in found], 1) for _, found, f in columns]
    header = ["dataset", *(title for title, *_ in columns)]
    lines = [header, ["---", *["---:"] * len(columns)], *rows, ["mean", *means]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
