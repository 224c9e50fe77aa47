"""Figures of finished runs of the mini suite, and their Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import fmean

import fcit
from fcit import suite as mini
from fcit.benchmark import metrics
from fcit.methods import find, names
from fcit.report.groups import spread
from fcit.report.tables import format_spread
from fcit.rounds.evaluate import adapters_by_dataset, routing
from fcit.rounds.runfolder import RunFolder
from fcit.runs.sweep import Clock
from fcit.worker.experiment import Experiment

METHODS = (
    "zeroshot", "finetune", "lwf", "ewc", "l2p", "olora", "moelora", "hide", "disco", "individual",
    "multitask",
)  # fmt: skip
"""All that tables show, where they ran."""

USUAL = ("zeroshot", "finetune", "disco", "individual", "multitask")
"""Those that run where none are named."""

POINTS = tuple(name for name in names() if find(name).reference)
"""The reference points."""
REFERENCES = {"task-het": "task-hom", "cap-het": "cap-hom"}
"""Zero-shot, individual and multitask training know no slots: those of the homogeneous setting, over
the same datasets with the same seed, stand for both."""

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


@dataclass(frozen=True)
class Key:
    """A run: a method in a setting at a size with a seed."""

    setting: str
    size: str
    seed: int
    method: str

    def folder(self, out: Path) -> Path:
        """The run's folder below the benchmark's folder."""
        return out / self.name / self.method / f"seed{self.seed}"

    @property
    def name(self) -> str:
        """Name of the folder of all runs in this setting at this size."""
        return f"{self.setting}-{self.size}"

    def __str__(self) -> str:
        return f"{self.setting} {self.size} seed {self.seed} {self.method}"


Percents = Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """A finished run's figures, by dataset in percent; empty if the method has none."""

    key: Key
    last: float
    avg: float
    final: Percents
    learned: Percents
    forgetting: Percents
    zero_shot: Percents
    chance: Percents
    routing: Percents = field(default_factory=dict)
    routing_seen: Percents = field(default_factory=dict)
    routing_unseen: Percents = field(default_factory=dict)
    seconds: float = 0.0
    whole: bool = True
    """Whether `seconds` is the time of one uninterrupted run (else it is at least so much)."""
    jobs: int = 1
    """How many runs shared the machine."""


def measure(key: Key, folder: Path, clock: Clock) -> Measured:
    """Read a finished run. Raises FcitError if a file is missing."""
    run = fcit.load(folder)
    found = run.results
    names, rows = found["datasets"], found["matrix"]
    zero = found["zero_shot"]
    several = len(rows) > 1
    routed = [_routing(run, str(len(rows)), unseen) for unseen in (False, True)]
    return Measured(
        key,
        found["last"],
        found["avg"],
        dict(zip(names, rows[-1], strict=True)) if rows else zero,
        metrics.just_learned(rows, names) if several else {},
        metrics.forgetting(rows, names) if several else {},
        zero,
        found["chance"],
        found["routing"],
        *(routed if found["routing"] else ({}, {})),
        clock.seconds,
        clock.whole,
        clock.jobs,
    )


def _routing(run: fcit.runs.api.Run, stage: str, unseen: bool) -> dict[str, float]:
    """Routing of the test prompts whose wording does (or does not) occur in training, by dataset."""
    experiment = Experiment(run.config)
    tasks = [task for stage in experiment.training_setting.stages for task in stage.tasks]
    own = adapters_by_dataset(RunFolder(run.folder).trainers(), tasks)
    found: dict[str, float] = {}
    for name in experiment.setting.datasets:
        folder = RunFolder(run.folder)
        rows = folder.answers(stage, name) if folder.predictions(stage, name).is_file() else []
        kept = [row for row in rows if is_unseen(name, row.prompt) is unseen]
        if kept and all(row.activation for row in kept):
            found[name] = routing(kept, own.get(name, ()))
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


class Runs:
    """All finished runs of the benchmark."""

    def __init__(self, measured: Sequence[Measured]):
        self.all = list(measured)

    def groups(self) -> list[tuple[str, str]]:
        """The settings and sizes with at least one run."""
        return list(dict.fromkeys((one.key.setting, one.key.size) for one in self.all))

    def of(self, setting: str, size: str, method: str) -> list[Measured]:
        """A method's runs, one per seed. A reference point's runs may be those of another setting."""
        found = self._exactly(setting, size, method)
        if found or method not in POINTS:
            return found
        own = {
            one.key.seed for one in self.all if (one.key.setting, one.key.size) == (setting, size)
        }
        same = self._exactly(REFERENCES.get(setting, setting), size, method)
        return [one for one in same if one.key.seed in own]

    def _exactly(self, setting: str, size: str, method: str) -> list[Measured]:
        found = [one for one in self.all if one.key.method == method]
        return [one for one in found if (one.key.setting, one.key.size) == (setting, size)]


def mean(percents: Percents) -> float | None:
    """The mean over datasets; None if there are none."""
    return fmean(percents.values()) if percents else None


def show(values: Sequence[float | None], digits: int = 2) -> str:
    """Mean, and with several seeds the sample standard deviation; empty if nothing was measured."""
    found = spread(values)
    return format_spread(found, digits) if found else ""


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


# -- tables ------------------------------------------------------------------------------------------

COLUMNS: dict[str, Callable[[Measured], float | None]] = {
    "Last": lambda one: one.last,
    "Avg": lambda one: one.avg,
    "forgetting": lambda one: mean(one.forgetting),
    "just learned": lambda one: mean(one.learned),
    "routing": lambda one: mean(one.routing),
    "routing, unseen wording": lambda one: mean(one.routing_unseen),
}


def methods_table(runs: Runs, setting: str, size: str) -> str:
    """One line per method: mean and spread over seeds; seconds of training and answering together."""
    rows = []
    for method in METHODS:
        found = runs.of(setting, size, method)
        if found:
            whole = "" if all(one.whole for one in found) else "at least "
            seconds = whole + show([one.seconds for one in found], 0)
            cells = [show([get(one) for one in found]) for get in COLUMNS.values()]
            rows.append([method, str(len(found)), *cells, seconds])
    return _markdown(["method", "seeds", *COLUMNS, "seconds"], rows)


def datasets_table(runs: Runs, setting: str, size: str) -> str:
    """One line per dataset, in percent: chance and reference points, then the methods."""
    of = {method: runs.of(setting, size, method) for method in METHODS}
    some = next(found for found in of.values() if found)
    columns: list[tuple[str, list[Measured], str]] = [
        ("chance", some, "chance"),
        ("zero-shot", some, "zero_shot"),
        ("individual", of["individual"], "final"),
        ("multitask", of["multitask"], "final"),
        ("DISCO just learned", of["disco"], "learned"),
        ("DISCO last", of["disco"], "final"),
        ("finetune just learned", of["finetune"], "learned"),
        ("finetune last", of["finetune"], "final"),
        ("routing", of["disco"], "routing"),
        ("seen wording", of["disco"], "routing_seen"),
        ("unseen wording", of["disco"], "routing_unseen"),
    ]
    rows = [
        [name, *(show([getattr(one, f).get(name) for one in found], 1) for _, found, f in columns)]
        for name in some[0].chance
    ]
    means = [show([mean(getattr(one, f)) for one in found], 1) for _, found, f in columns]
    return _markdown(["dataset", *(title for title, *_ in columns)], [*rows, ["mean", *means]])


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
