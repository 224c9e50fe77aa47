"""What a large model's steps leave behind goes back to the system; a small one's is kept."""

from __future__ import annotations

import contextlib
import gc
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

import zygote
from fcit.models import uncollected
from fcit.models.device import choose
from fcit.types import FcitError

LEAVE = """
import os
import torch
from pathlib import Path
from fcit.models.device import LARGE, release_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def leave():  # the last one lies above the others, so that glibc cannot shrink its heap
    tensors = [torch.ones(1 << 17) for _ in range(400)]
    return tensors[-1]

first, last = leave(), leave()  # after the first, glibc keeps what is as large
before = resident()
release_memory("cpu", LARGE - 1)
small = resident()
release_memory("cpu", LARGE)
print(before - small, small - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to give back")
def test_freed_memory_goes_back_after_a_step_of_a_large_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(zygote.FORK, "1")
    done = subprocess.run([sys.executable, "-c", LEAVE], capture_output=True, text=True, check=True)
    small, large = map(int, done.stdout.split())
    assert small < 10 << 20 < 100 << 20 < large


KEEP = """
import resource
import torch
from fcit.models.device import LARGE, keep_memory

def faults():  # pages that the system had to map in twenty steps
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        tensors = [torch.ones(1 << 22) for _ in range(3)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_memory("cpu", LARGE)
large = faults()
keep_memory("cpu", LARGE - 1)
faults()
print(large, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep")
def test_freed_memory_of_a_small_model_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(zygote.FORK, "1")
    done = subprocess.run([sys.executable, "-c", KEEP], capture_output=True, text=True, check=True)
    large, small = map(int, done.stdout.split())
    assert 100 * small < large


@pytest.mark.parametrize("device", ["hpu", "privateuseone", "meta", "nonsense"])
def test_a_device_that_cannot_compute_here_is_named(device: str) -> None:
    with pytest.raises(FcitError, match=f"model.device: '{device}' cannot be used here"):
        choose(device, "auto")


@pytest.mark.parametrize(("able", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_that_only_emulates_bf16_computes_in_float32(
    able: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: torch.ones(1))
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: able or including_emulation,
    )
    assert choose("cuda", "auto") == ("cuda", dtype)


def test_the_garbage_collector_is_off_inside_and_as_before_afterwards() -> None:
    assert gc.isenabled()
    with pytest.raises(InterruptedError), uncollected():
        assert not gc.isenabled()
        raise InterruptedError
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.fixture
def thawed() -> Iterator[None]:
    """Without the objects that `zygote` froze, if it started this process."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    yield
    gc.unfreeze()
    if frozen:
        gc.freeze()


@pytest.mark.usefixtures("thawed")
def test_what_was_loaded_without_the_collector_is_old_at_once() -> None:
    """None of it is looked through again as a young object, and none is kept for ever."""
    with uncollected():
        made = [[number] for number in range(5)]
    assert not any(one is made for one in gc.get_objects(generation=0))
    assert any(one is made for one in gc.get_objects(generation=2))
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("thawed")
def test_what_somebody_froze_stays_frozen() -> None:
    gc.freeze()
    with uncollected():
        pass
    assert gc.get_freeze_count()
