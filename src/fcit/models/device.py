"""Which device and number format a model runs in."""

from __future__ import annotations

import torch

from fcit.types import FcitError


def choose(device: str, dtype: str) -> tuple[str, torch.dtype]:
    """Resolve "auto": CUDA, else MPS, else CPU; bf16 on an accelerator, fp32 on a CPU.

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
        dtype = "float32" if device == "cpu" else "bfloat16"
    return device, getattr(torch, dtype)
