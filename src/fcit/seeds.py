"""Named random streams: every random choice derives from (seed, purpose, stage, round, client)."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(seed: int, purpose: str, *key: int | str) -> int:
    """A 63-bit seed for one purpose and key (stage, round, client, ...), the same on every machine."""
    return int.from_bytes(_digest(seed, purpose, *key)[:8], "big") >> 1


def _digest(seed: int, *words: int | str) -> bytes:
    return hashlib.sha256("/".join(map(str, (seed, *words))).encode()).digest()


def numpy_stream(seed: int, purpose: str, *key: int | str) -> np.random.Generator:
    """A NumPy generator for one purpose and key."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(derive(seed, purpose, *key)))


def noise_stream(seed: int | None, purpose: str, *key: int | str) -> np.random.Generator:
    """A NumPy generator for noise that hides something, from 256 bits of the derived seed, or of the
    system (None). torch's has only 2^32 different streams, so its noise can be found by trying all."""
    import numpy as np

    entropy = (
        secrets.randbits(256) if seed is None else int.from_bytes(_digest(seed, purpose, *key))
    )
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy, pool_size=8)))


def torch_stream(
    seed: int, purpose: str, *key: int | str, device: str | torch.device = "cpu"
) -> torch.Generator:
    """A torch generator for one purpose and key."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, purpose, *key))


@contextmanager
def lent(seed: int, purpose: str, *key: int | str) -> Iterator[None]:
    """Seed torch's global generators meanwhile: new weights are drawn from them."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive(seed, purpose, *key))
        yield
