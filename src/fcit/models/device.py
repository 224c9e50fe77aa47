"""The device and number format that a model runs in."""

import contextlib
import ctypes
from collections.abc import Iterator

from fcit.models import uncollected
from fcit.types import FcitError, first_line

with uncollected():
    import torch


def choose(device: str, dtype: str, key: str = "model.device") -> tuple[str, torch.dtype]:
    """Resolve "auto": CUDA, then MPS, then CPU; bf16 where the hardware computes in it, else fp32.

    Raises FcitError naming `key`, which says the device, when it cannot be used.
    """
    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        line = first_line(error)
        raise FcitError(f"{key}: {device!r} cannot be used here: {line}") from None
    if dtype == "auto":
        dtype = "bfloat16" if fast_bf16(device) else "float32"
    return device, getattr(torch, dtype)


def fast_bf16(device: str = "cpu") -> bool:
    """Whether a device has instructions for bf16 matrices (without them bf16 is slower than fp32)."""
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if not device.startswith("cpu"):
        return True
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


class TooLittleMemoryError(FcitError):
    """A model or an encoder found too little memory."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an exception is torch's complaint about too little memory, of a GPU or of the machine."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


@contextlib.contextmanager
def enough_memory(what: str, instead: str) -> Iterator[None]:
    """Turn torch's complaint about too little memory into one line. Raises TooLittleMemoryError.

    what: the work inside, as a sentence's subject; instead: the recipe's keys that need less.
    """
    try:
        yield
    except (RuntimeError, TooLittleMemoryError) as error:
        if isinstance(error, TooLittleMemoryError) or lacks_memory(error):
            source = "" if isinstance(error, TooLittleMemoryError) else "torch: "
            told = f"{what} found too little memory; {instead} ({source}{first_line(error)})"
            raise TooLittleMemoryError(told) from None
        raise


LARGE = 100_000_000
"""Parameters of a model whose freed memory is worth having back; that of smaller ones is kept."""

KEEPING = {-3: 32 << 20, -1: 2**31 - 1, -2: 256 << 20}
"""glibc's M_MMAP_THRESHOLD (its largest value), M_TRIM_THRESHOLD and M_TOP_PAD, in bytes."""


def keep_memory(device: str, parameters: int) -> None:
    """For a small model on a CPU, let glibc keep freed memory for the next step; otherwise the system
    clears and maps the same pages again and again (docs/performance.md). Elsewhere this does nothing."""
    if device == "cpu" and parameters < LARGE:
        with contextlib.suppress(OSError, AttributeError, TypeError):
            for option, value in KEEPING.items():
                ctypes.CDLL(None).mallopt(option, value)


def release_memory(device: str, parameters: int) -> None:
    """Between steps and batches of a large model on a CPU, let glibc return freed memory to the system;
    otherwise gaps that no later tensor fits add up. Elsewhere this does nothing.

    Returning every large tensor as it is freed (mallopt's M_MMAP_THRESHOLD) takes a fifth less memory
    but half as long again, because the system clears and maps every page anew (docs/performance.md).
    """
    if device == "cpu" and parameters >= LARGE:
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)
