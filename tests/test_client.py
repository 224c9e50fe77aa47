"""The local loop's parts: batches of alike lengths, and the learning rate."""

from __future__ import annotations

import itertools

from fcit.client import grouped, schedule
from fcit.seeds import derive, numpy_stream


def test_every_sample_is_in_exactly_one_batch_of_alike_lengths() -> None:
    lengths = [(i * 37) % 101 for i in range(103)]
    batches = list(grouped(lengths, 8, numpy_stream(0, "x")))
    assert sorted(i for batch in batches for i in batch) == list(range(103))
    assert max(len(batch) for batch in batches) == 8
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches]
    assert max(spread) <= 12  # 101 for random batches
    assert batches == list(grouped(lengths, 8, numpy_stream(0, "x")))
    assert batches != list(grouped(lengths, 8, numpy_stream(1, "x")))


def test_the_rate_warms_up_then_falls_to_zero() -> None:
    rates = [schedule(step, 100, 0.03) for step in range(100)]
    assert rates[:3] == [1 / 3, 2 / 3, 1.0]
    assert rates[3] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(rates[3:]))
    assert 0 < rates[-1] < 0.001
    assert schedule(0, 1, 0.03) == 1.0


def test_streams_differ_by_purpose_and_place_and_never_move() -> None:
    seeds = {derive(s, p, *place) for s in (0, 1) for p in "ab" for place in ((), (1,), (1, 2))}
    assert len(seeds) == 12
    assert derive(0, "batches", 1, 2, 3) == 0x6486B1BD6D83EA7D  # a moved stream moves every number
