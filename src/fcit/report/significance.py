"""Whether a difference in Last could come from the choice of test questions: a paired bootstrap.

Both methods answered the same questions, so questions are resampled and both are scored on the same
resample (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 13 and 16; Koehn 2004,
Statistical Significance Tests for Machine Translation Evaluation, EMNLP).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from fcit.report.group import Entry, Group, Spread
from fcit.report.read import Run, predictions
from fcit.report.sheet import MARK, Cell, Line, Sheet
from fcit.seeds import numpy_stream

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 10_000
LEVEL = 0.05
FEW, MANY = 64, 4_000_000
"""Up to how many distinct differences are drawn by their counts, and how many draws are held at once."""


@dataclass(frozen=True)
class Comparison:
    """`label` minus `other` in points of Last, the 95 % percentile interval, and the two-sided p."""

    label: str
    other: str
    seeds: tuple[int, ...]
    difference: float
    low: float
    high: float
    p: float

    @property
    def below(self) -> bool:
        """Whether the first is significantly below the other."""
        return self.difference < 0 and self.p < LEVEL


@dataclass(frozen=True)
class Tests:
    """A group's comparisons with the best learning method, and with finetune.

    `apart`: datasets whose accuracy is not the mean of their samples' scores (captions).
    """

    best: str
    against_best: tuple[Comparison, ...]
    against_finetune: tuple[Comparison, ...]
    apart: tuple[str, ...]

    @property
    def level(self) -> frozenset[str]:
        """The labels of what is not significantly below the best."""
        return frozenset(one.label for one in self.against_best if not one.below)


Answered = tuple[str, "np.ndarray"]
"""A digest of a dataset's questions, and the score of every answer."""


def significance(group: Group) -> Tests | None:
    """The comparisons of a group; None where there are not two finished methods to compare.

    Methods are compared over the seeds both have; those without a seed, questions or datasets in common
    with the other are left out.
    """
    done = [one for one in group.learners if not one.unfinished and _last(one) is not None]
    if len(done) < 2:
        return None
    held = {
        (run.path, name): found
        for entry in done
        for run in entry.runs
        for name in group.datasets
        if (found := _answered(run, name))
    }

    def against(other: Entry, others: Sequence[Entry]) -> tuple[Comparison, ...]:
        found = [_compare(group, entry, other, held) for entry in others if entry is not other]
        return tuple(one for one in found if one)

    competing = [one for one in done if one in group.contest]
    best = max(competing, key=lambda one: _last(one) or 0.0)
    plain = next((one for one in done if one.first.method == "finetune"), None)
    apart = [
        name
        for at, name in enumerate(group.datasets)
        if any(
            (found := held.get((run.path, name)))
            and (cell := run.matrix[-1][at]) is not None
            and abs(cell - float(found[1].mean())) > 0.01
            for entry in done
            for run in entry.runs
        )
    ]
    rest = [one for one in done if one is not best]  # the best with finetune is there already
    with_plain = against(plain, rest) if plain and plain is not best else ()
    return Tests(best.label, against(best, done), with_plain, tuple(apart))


def bootstrap(
    parts: Sequence[Sequence[np.ndarray]], streams: Sequence[Sequence[np.random.Generator]]
) -> tuple[float, float, float, float]:
    """Mean difference, 95 % percentile interval, and two-sided p of differences [dataset][seed][sample].

    Samples are resampled within each dataset and seed; the mean is over samples, seeds, datasets. p is
    twice the smaller share of resamples on either side of zero, counting the observed one, at most 1.
    """
    import numpy as np

    drawn = np.zeros(RESAMPLES)
    observed = 0.0
    for units, rngs in zip(parts, streams, strict=True):
        for unit, rng in zip(units, rngs, strict=True):
            weight = 1 / (len(parts) * len(units))
            drawn += weight * _resampled(unit, rng)
            observed += weight * float(unit.mean())
    low, high = np.percentile(drawn, [2.5, 97.5])
    tiny = 1e-9  # sums of the same numbers in another order
    sides = int((drawn <= tiny).sum()), int((drawn >= -tiny).sum())
    p = min(1.0, 2 * (min(sides) + 1) / (RESAMPLES + 1))
    return observed, float(low), float(high), p


def sheet(group: Group, tests: Tests) -> Sheet:
    """A group's comparisons as a small table."""
    lines = [
        Line(
            one.label,
            (
                Cell(one.other),
                Cell(f"{one.difference:+.2f}", figure=Spread(one.difference)),
                Cell(f"{one.low:+.2f} to {one.high:+.2f}"),
                Cell(f"{one.p:.4f}", mark=one.other == tests.best and not one.below),
                Cell(", ".join(map(str, one.seeds))),
            ),
        )
        for one in (*tests.against_best, *tests.against_finetune)
    ]
    columns = ("against", "difference in Last, points", "95 % interval", "p", "seeds")
    return Sheet(group.title, "Method", (("", 5),), columns, tuple(lines), _notes(tests))


def _notes(tests: Tests) -> tuple[str, ...]:
    notes = [
        f"Paired bootstrap over test samples (Efron and Tibshirani 1993; Koehn 2004): {RESAMPLES:,} "
        "resamples of the questions of every dataset, the same for both methods; mean over datasets, "
        "averaged over the seeds both have; percentile interval; two-sided p, not corrected for the "
        "number of comparisons.",
        f"{MARK}: not significantly below {tests.best} (p ≥ {LEVEL:g}).",
        "It tells whether other test questions could turn the order, not whether another training "
        "could: the spread over seeds tells that.",
    ]
    if tests.apart:
        notes.append(
            f"{', '.join(tests.apart)}: resampled is the mean of the samples' own scores, whereas Last "
            "holds a score of all captions together; the difference here may deviate from that of the "
            "table."
        )
    return tuple(notes)


def _compare(
    group: Group, one: Entry, other: Entry, held: Mapping[tuple[Path, str], Answered]
) -> Comparison | None:
    theirs = {run.seed: run for run in other.runs}
    pairs = [(run, theirs[run.seed]) for run in one.runs if run.seed in theirs]
    parts: list[list[np.ndarray]] = []
    streams: list[list[np.random.Generator]] = []
    for name in group.datasets:
        found = [(held.get((a.path, name)), held.get((b.path, name))) for a, b in pairs]
        units: list[np.ndarray] = []
        for mine, yours in found:
            if mine is None or yours is None or mine[0] != yours[0]:
                return None
            units.append(mine[1] - yours[1])
        asked = [mine[0] for mine, _ in found if mine]
        if (
            len(asked) > 1 and len(set(asked)) == 1
        ):  # one test set for all seeds: a question stays one
            units = [sum(units[1:], units[0]) / len(units)]
        parts.append(units)
        seeds = [run.seed for run, _ in pairs][: len(units)]
        streams.append([numpy_stream(0, "bootstrap", group.setting, name, seed) for seed in seeds])
    if not pairs or not parts:
        return None
    figures = bootstrap(parts, streams)
    return Comparison(one.label, other.label, tuple(run.seed for run, _ in pairs), *figures)


def _resampled(unit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mean of every resample. Few distinct values are drawn by how often each comes, which is the
    same distribution without touching every sample."""
    import numpy as np

    values, counts = np.unique(unit, return_counts=True)
    size = len(unit)
    if len(values) <= FEW:
        return rng.multinomial(size, counts / size, RESAMPLES) @ values / size
    step = max(1, MANY // size)
    rows = [min(step, RESAMPLES - at) for at in range(0, RESAMPLES, step)]
    return np.concatenate([unit[rng.integers(size, size=(n, size))].mean(axis=1) for n in rows])


def _answered(run: Run, dataset: str) -> Answered | None:
    import numpy as np

    rows = predictions(run, dataset)
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.question_id, row.prompt, row.truth)).encode())
    return (digest.hexdigest(), np.array([row.score for row in rows])) if rows else None


def _last(entry: Entry) -> float | None:
    known = [run.last for run in entry.runs if run.last is not None]
    return fmean(known) if known else None
