"""Deal samples to clients: Dirichlet quantity skew, seeded, losing no sample; and choose some of a
dataset's, with every answer's share.

The published split, where a data folder has one, is read by `benchmark.published.published`.
"""

import math
from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from fcit.seeds import numpy_stream
from fcit.types import FcitError, Sample


def some(samples: Sequence[Sample], count: int, rng_seed: int, name: str) -> list[Sample]:
    """`count` of a dataset's samples (all where there are no more), in their order.

    All samples are equally likely, and an answer's share differs from that in the whole by less than one
    sample: a systematic sample of the samples in random order, those of one answer side by side.
    """
    if count >= len(samples):
        return list(samples)
    rng = numpy_stream(rng_seed, "some", name)
    groups: dict[str, list[int]] = {}
    for index in rng.permutation(len(samples)):
        groups.setdefault(samples[index].answers[0], []).append(int(index))
    order = [index for group in groups.values() for index in group]
    start = int(rng.integers(len(order)))
    places = ((start + step * len(order)) // count for step in range(count))
    return [samples[index] for index in sorted(order[place] for place in places)]


def split(
    count: int, clients: int, beta: float, rng_seed: int, name: str, minimum: int = 1
) -> list[list[int]]:
    """Which of `count` samples each client holds, ascending indices; `name`: whose they are.

    The clients' shares are one draw from a symmetric Dirichlet(beta) (Guo et al. 2025, section 3),
    rounded by largest remainder, over a random permutation of the samples. A client below `minimum`
    is filled up from whoever then holds most. Every sample is dealt exactly once.

    Raises FcitError when the samples do not suffice.
    """
    if count < clients * minimum:
        raise FcitError(
            f"{name}: {count} training samples are too few for {clients} clients of at least "
            f"{minimum}; lower federation.clients or federation.min_samples"
        )
    rng = numpy_stream(rng_seed, "partition", name)
    order = [int(index) for index in rng.permutation(count)]
    shares = [float(share) for share in rng.dirichlet([beta] * clients)]
    sizes = _filled(_rounded(shares, count), minimum)
    parts: list[list[int]] = []
    start = 0
    for size in sizes:
        parts.append(sorted(order[start : start + size]))
        start += size
    return parts


def _rounded(shares: list[float], count: int) -> list[int]:
    """Whole numbers that sum to `count`, by largest remainder; ties go to the smaller client id."""
    sizes = [math.floor(share * count) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: sizes[i] - shares[i] * count)
    left = count - sum(sizes)
    for step in range(abs(left)):
        sizes[by_remainder[step]] += 1 if left > 0 else -1
    return sizes


def _filled(sizes: list[int], minimum: int) -> list[int]:
    """No size below `minimum`; what is missing is taken, one by one, from the largest."""
    sizes = list(sizes)
    largest = [(-size, client) for client, size in enumerate(sizes)]
    heapify(largest)  # holds every client's present size, and old ones, holder are passed over
    for client, size in enumerate(sizes):
        for _ in range(minimum - size):
            while -largest[0][0] != sizes[largest[0][1]]:
                heappop(largest)
            for holder, change in ((largest[0][1], -1), (client, 1)):
                sizes[holder] += change
                heappush(largest, (-sizes[holder], holder))
    return sizes
