"""Which device and number format a model runs in."""

from __future__ import annotations

import contextlib
import ctypes

import torch

from fcit.types import FcitError


def choose(device: str, dtype: str) -> tuple[str, torch.dtype]:
    """Resolve "auto": CUDA, else MPS, else CPU; bf16 where the hardware computes in it, else fp32.

    Raises FcitError when the named device is not here.
    """
    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise FcitError(f"model.device: {device!r} cannot be used here: {line}") from None
    if dtype == "auto":
        dtype = "float32" if device == "cpu" and not fast_bf16() else "bfloat16"
    return device, getattr(torch, dtype)


def fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices itself (elsewhere bf16 is slower than fp32)."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


LARGE = 100_000_000
"""Parameters from which on a CPU's memory is worth the milliseconds of giving it back."""


def give_back(device: str, parameters: int) -> None:
    """Between the steps and batches of a large model on a CPU, let glibc return what tensors left behind
    (elsewhere: nothing); else holes that no later tensor fits add up.

    Returning every large tensor as it is freed (mallopt's M_MMAP_THRESHOLD) takes a fifth less memory,
    and half as long again: the system clears and maps every page anew (docs/performance.md).
    """
    if device == "cpu" and parameters >= LARGE:
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)
