"""Named random streams: every random choice derives from (seed, purpose, stage, round, client)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(seed: int, purpose: str, *place: int | str) -> int:
    """A 63-bit seed for one purpose at one place (stage, round, client, ...), the same everywhere."""
    text = "/".join([str(seed), purpose, *map(str, place)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_stream(seed: int, purpose: str, *place: int | str) -> np.random.Generator:
    """A NumPy generator of its own for one purpose at one place."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(derive(seed, purpose, *place)))


def torch_stream(
    seed: int, purpose: str, *place: int | str, device: str | torch.device = "cpu"
) -> torch.Generator:
    """A torch generator of its own for one purpose at one place, on a CPU unless said otherwise."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, purpose, *place))


@contextmanager
def lent(seed: int, purpose: str, *place: int | str) -> Iterator[None]:
    """Fresh weights come from torch's global streams: lend them a seed of ours for a moment."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive(seed, purpose, *place))
        yield
