"""Contenders timed in alternation, so that a slower machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Ratio:
    """Our throughput divided by another's, over some rounds."""

    unit: str
    ours: float
    """Median throughput, as `theirs`."""
    theirs: float
    ratio: float
    """The median over rounds; `low` and `high` are the quartiles."""
    low: float
    high: float
    target: float | None
    """None where the ratio is only reported."""
    rounds: int

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target; None without one."""
        return None if self.target is None else self.ratio >= self.target


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    progress: Callable[[int], None] = lambda done: None,
    clock: Callable[[], float] = time.perf_counter,
    prepare: Callable[[str], object] = lambda name: None,
) -> dict[str, list[float]]:
    """Seconds of every contender in every round, after one uncounted call of each.

    The order alternates (A B C, C B A, ...), so a machine that gets slower favors nobody. `prepare` is
    called with a contender's name before it, and is not timed.
    """
    for name, call in contenders.items():
        prepare(name)
        call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names if number % 2 == 0 else reversed(names):
            prepare(name)
            begun = clock()
            contenders[name]()
            seconds[name].append(clock() - begun)
        progress(number + 1)
    return seconds


def ratio(
    ours: Sequence[float],
    theirs: Sequence[float],
    unit: str,
    work: tuple[float, float],
    target: float | None = None,
) -> Ratio:
    """The ratio of throughputs, taken round by round, from seconds in the same rounds.

    work: how many units one call does, ours and the other's.
    """
    our_work, their_work = work
    ratios = [(b / their_work) / (a / our_work) for a, b in zip(ours, theirs, strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Ratio(
        unit, our_work / median(ours), their_work / median(theirs), median(ratios), low, high,
        target, len(ratios),
    )  # fmt: skip
