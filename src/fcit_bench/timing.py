"""Contenders timed in turns, so that what slows the machine down slows them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Ratio:
    """A throughput of ours over another's: median and quartiles over rounds, and both throughputs.

    work: what one call does, in units of `unit` (of ours, and of the other). target: what the ratio is
    to reach; None where it is only reported.
    """

    unit: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    target: float | None
    rounds: int

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target; None without one."""
        return None if self.target is None else self.ratio >= self.target


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    told: Callable[[int], None] = lambda done: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every contender in every round, after one call of each that is not counted.

    Odd rounds go backwards (A B C, C B A, ...): a machine that grows slower favours nobody.
    """
    for call in contenders.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names if number % 2 == 0 else reversed(names):
            begun = clock()
            contenders[name]()
            found[name].append(clock() - begun)
        told(number + 1)
    return found


def ratio(
    ours: Sequence[float],
    theirs: Sequence[float],
    unit: str,
    work: tuple[float, float],
    target: float | None = None,
) -> Ratio:
    """What seconds of the same rounds say: the ratio is taken round by round."""
    mine, other = work
    pairs = [(b / other) / (a / mine) for a, b in zip(ours, theirs, strict=True)]
    low, _, high = quantiles(pairs, n=4, method="inclusive") if len(pairs) > 1 else pairs * 3
    return Ratio(
        unit, mine / median(ours), other / median(theirs), median(pairs), low, high, target,
        len(pairs),
    )  # fmt: skip
