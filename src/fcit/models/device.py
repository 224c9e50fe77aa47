"""Which device and number format a model runs in."""

from __future__ import annotations

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
