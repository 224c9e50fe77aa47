"""Whether a difference in Last could come from the choice of test questions, or from the seed.

Questions: a paired bootstrap. Both methods answered the same questions, so questions are resampled and
both are scored on the same resample (Efron and Tibshirani 1993, An Introduction to the Bootstrap,
chapters 13 and 16; Koehn 2004, Statistical Significance Tests for Machine Translation Evaluation, EMNLP).
Seeds: Student's t interval of the differences of runs with the same seed (Student 1908, Biometrika 6).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, Any

from fcit.report.groups import Entry, Group, Spread, mean
from fcit.report.run_data import RunData, predictions, questions_digest
from fcit.report.tables import MARK, Cell, Line, Table
from fcit.seeds import numpy_stream

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 10_000
LEVEL = 0.05
FEW_VALUES = 64
"""Up to so many distinct differences, resamples are drawn by how often each occurs."""

DRAWN_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """`label` minus `other`: two methods over the seeds both have."""

    label: str
    other: str
    seeds: tuple[int, ...]
    difference: float
    """In points of Last."""
    over_seeds: tuple[float, float] | None
    """The 95 % interval of the difference over seeds; None for one seed."""
    over_questions: tuple[float, float] | None = None
    """The 95 % percentile interval over questions; None where answers are missing."""
    p: float | None = None
    """Two-sided, over questions."""

    @property
    def below(self) -> bool:
        """Whether the first is significantly below the other, by all intervals that are known."""
        low, high = self.over_seeds or (-1.0, -1.0)
        if self.p is None:  # then the interval over seeds decides alone, if it is one
            return low < high < 0
        return self.difference < 0 and self.p < LEVEL and high < 0


@dataclass(frozen=True)
class Tests:
    """A group's comparisons with the best learning method, and with finetune."""

    best: str
    against_best: tuple[Comparison, ...]
    against_finetune: tuple[Comparison, ...]
    corpus_scored: tuple[str, ...]
    """Datasets whose accuracy is not the mean of their samples' scores (captions)."""

    @property
    def level(self) -> frozenset[str]:
        """The labels of what is not significantly below the best."""
        return frozenset(test.label for test in self.against_best if not test.below)


@dataclass(frozen=True)
class Answers:
    """What a run answered on a dataset."""

    questions: str
    """A digest: runs with equal ones answered the same questions."""
    names: tuple[bytes, ...]
    """What tells each question from all others of a data folder; empty for the mini suite."""
    scores: np.ndarray


def significance(group: Group) -> Tests | None:
    """The comparisons of a group; None where there are not two finished methods to compare.

    Methods are compared over the seeds both have; those without a seed, questions or datasets in common
    with the other are left out. So are single runs whose answers are missing.
    """
    finished = [e for e in group.learners if not e.unfinished and _last(e) is not None]
    if len(finished) < 2:
        return None
    runs = [run for entry in finished for run in entry.runs]
    shared: dict[str, tuple[bytes, ...]] = {}
    answers = {
        (run.path, name): found
        for run in runs
        for name in group.datasets
        if (found := _answers(run, name, shared))
    }

    def against(other: Entry, entries: Sequence[Entry]) -> tuple[Comparison, ...]:
        tests = [_compare(group, entry, other, answers) for entry in entries if entry is not other]
        return tuple(test for test in tests if test)

    competing = [entry for entry in finished if entry in group.contest]
    best = max(competing, key=lambda entry: _last(entry) or 0.0)
    finetune = next((entry for entry in finished if entry.first.method == "finetune"), None)
    corpus_scored = [
        name
        for at, name in enumerate(group.datasets)
        if any(
            (found := answers.get((run.path, name)))
            and (cell := run.matrix[-1][at]) is not None
            and abs(cell - float(found.scores.mean())) > 0.01
            for run in runs
        )
    ]
    others = [entry for entry in finished if entry is not best]  # best and finetune: there already
    with_finetune = against(finetune, others) if finetune and finetune is not best else ()
    return Tests(best.label, against(best, finished), with_finetune, tuple(corpus_scored))


def bootstrap(
    parts: Sequence[Sequence[tuple[np.ndarray, np.random.Generator]]],
) -> tuple[float, float, float, float]:
    """Mean difference, 95 % percentile interval, and two-sided p of differences [sample], each with its
    random stream, by dataset and seed.

    Samples are resampled within each dataset and seed; the mean is over samples, seeds, datasets. p is
    twice the smaller share of resamples on either side of zero, counting the observed one, at most 1.
    """
    import numpy as np

    drawn = np.zeros(RESAMPLES)
    observed = 0.0
    for units in parts:
        for unit, rng in units:
            weight = 1 / (len(parts) * len(units))
            drawn += weight * _resampled(unit, rng)
            observed += weight * float(unit.mean())
    low, high = np.percentile(drawn, [2.5, 97.5])
    tiny = 1e-9  # sums of the same numbers in another order
    sides = int((drawn <= tiny).sum()), int((drawn >= -tiny).sum())
    p = min(1.0, 2 * (min(sides) + 1) / (RESAMPLES + 1))
    return observed, float(low), float(high), p


T_QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""The 97.5 % quantiles of Student's t with 1, 2, ... 9 degrees of freedom."""


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of normal values (Student 1908); None of a single one."""
    if len(values) < 2:
        return None
    n, z = len(values) - 1, NormalDist().inv_cdf(0.975)  # n: degrees of freedom
    if n <= len(T_QUANTILES):
        quantile = T_QUANTILES[n - 1]
    else:  # the expansion of Abramowitz and Stegun 1964, 26.7.5
        quantile = z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        quantile += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    half = quantile * stdev(values) / len(values) ** 0.5
    return fmean(values) - half, fmean(values) + half


def significance_table(group: Group, tests: Tests) -> Table:
    """A group's comparisons as a small table."""
    lines = [
        Line(
            test.label,
            (
                Cell(test.other),
                Cell(f"{test.difference:+.2f}", value=Spread(test.difference)),
                Cell(_interval(test.over_questions)),
                Cell("–" if test.p is None else f"{test.p:.4f}"),
                Cell(_interval(test.over_seeds), mark=test.other == tests.best and not test.below),
                Cell(", ".join(map(str, test.seeds))),
            ),
        )
        for test in (*tests.against_best, *tests.against_finetune)
    ]
    difference, questions = "difference in Last, points", "95 % interval over questions"
    columns = ("against", difference, questions, "p", "95 % interval over seeds", "seeds")
    return Table(group.title, columns, tuple(lines), _notes(tests))


def _interval(ends: tuple[float, float] | None) -> str:
    return f"{ends[0]:+.2f} to {ends[1]:+.2f}" if ends else "–"


def _notes(tests: Tests) -> tuple[str, ...]:
    known = [test.p is not None for test in (*tests.against_best, *tests.against_finetune)]
    bootstrapped = [
        f"Paired bootstrap over test samples (Efron and Tibshirani 1993; Koehn 2004): {RESAMPLES:,} "
        "resamples of every dataset's questions, the same for both methods; mean over datasets and "
        "over common seeds; percentile interval; two-sided p, not corrected for multiple comparisons. "
        "It says whether other test questions could change the order."
    ]
    notes = [
        *(bootstrapped if any(known) else ()),
        "Over seeds: Student's t interval of the differences in Last between runs with the same seed. It "
        "says whether another training run could change the order.",
        "Call a difference significant only if every interval shown leaves out 0; of one seed, it holds "
        f"for this run only. {MARK}: not so of a method below {tests.best}.",
    ]
    if not all(known):
        notes.append("Without an interval over questions: answers are missing in some run folder.")
    if tests.corpus_scored:
        notes.append(
            f"{', '.join(tests.corpus_scored)}: the difference uses the mean of the samples' scores, "
            "whereas Last is a score of all captions together, so it may deviate."
        )
    return tuple(notes)


def _compare(
    group: Group, entry: Entry, other: Entry, answers: Mapping[tuple[Path, str], Answers]
) -> Comparison | None:
    by_seed = {run.seed: run for run in other.runs}
    pairs = [(run, by_seed[run.seed]) for run in entry.runs if run.seed in by_seed]
    if not pairs:
        return None
    seeds = tuple(run.seed for run, _ in pairs)
    lasts = [(run.last or 0.0) - (opposite.last or 0.0) for run, opposite in pairs]
    over_seeds = t_interval(lasts)
    if any(
        (run.path, name) not in answers for pair in pairs for run in pair for name in group.datasets
    ):
        alike = all(_asked(run) == _asked(opposite) for run, opposite in pairs)
        if over_seeds is None or not alike:
            return None
        return Comparison(entry.label, other.label, seeds, fmean(lasts), over_seeds)
    parts: list[list[tuple[np.ndarray, np.random.Generator]]] = []
    for name in group.datasets:
        both = [(answers[run.path, name], answers[opposite.path, name]) for run, opposite in pairs]
        if any(first.questions != second.questions for first, second in both):
            return None
        units = _units([(first.names, first.scores - second.scores) for first, second in both])
        streams = (numpy_stream(0, "bootstrap", group.setting, name, seed) for seed in seeds)
        parts.append(list(zip(units, streams, strict=False)))
    observed, low, high, p = bootstrap(parts)
    return Comparison(entry.label, other.label, seeds, observed, over_seeds, (low, high), p)


def _units(rows: Sequence[tuple[tuple[bytes, ...], np.ndarray]]) -> list[np.ndarray]:
    """What is resampled: the differences of each seed's questions. Where seeds drew some or all of the
    same questions from a data folder, all seeds' differences of a question stay together: one unit, whose
    mean is the mean over seeds of the means over their questions."""
    import numpy as np

    asked = [name for names, _ in rows for name in names]
    if len(set(asked)) == len(asked):
        return [differences for _, differences in rows]
    sums = dict.fromkeys(asked, 0.0)
    for names, differences in rows:
        weight = len(sums) / (len(rows) * len(names))
        for name, difference in zip(names, differences, strict=True):
            sums[name] += weight * difference
    return [np.array([*sums.values()])]


def _resampled(unit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mean of every resample. Few distinct values are drawn by how often each comes, which is the
    same distribution without touching every sample."""
    import numpy as np

    values, counts = np.unique(unit, return_counts=True)
    size = len(unit)
    if len(values) <= FEW_VALUES:
        return rng.multinomial(size, counts / size, RESAMPLES) @ values / size
    step = max(1, DRAWN_AT_ONCE // size)
    rows = [min(step, RESAMPLES - at) for at in range(0, RESAMPLES, step)]
    return np.concatenate([unit[rng.integers(size, size=(n, size))].mean(axis=1) for n in rows])


def _answers(run: RunData, dataset: str, shared: dict[str, tuple[bytes, ...]]) -> Answers | None:
    """shared: the names of questions by their digest, which many runs have in common."""
    import numpy as np

    rows, root = predictions(run, dataset), run.setting_of("data", "root", "")
    digest, scores = questions_digest(rows), np.array([row.score for row in rows])
    if root and digest not in shared:
        told = (repr((row.question_id, row.prompt, row.truth)).encode() for row in rows)
        shared[digest] = tuple(hashlib.blake2b(text, digest_size=8).digest() for text in told)
    return Answers(digest, shared[digest] if root else (), scores) if rows else None


def _asked(run: RunData) -> dict[str, Any]:
    """The parts of a recipe that say which questions are asked."""
    data = {key: run.setting_of("data", key) for key in ("size", "test", "missing", "rules")}
    return data | {"limit": run.setting_of("evaluation", "limit")}


def _last(entry: Entry) -> float | None:
    return mean(run.last for run in entry.runs)
