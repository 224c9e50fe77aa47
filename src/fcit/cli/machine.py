"""The commands about this machine: doctor and cache."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

import fcit
from fcit.cli.screen import show, show_table
from fcit.files import ASIDE

GB = 1 << 30

REQUIRED = ("torch", "transformers", "safetensors", "numpy", "pillow")
OPTIONAL = (
    ("Flower", ("flwr",), "--engine flower is off (the local engine needs nothing)"),
    ("PEFT", ("peft",), "fcit bench is off (adapters are written in PEFT's format without it)"),
    ("parquet", ("pyarrow",), "fcit data fetch reads no parquet tables"),
    ("serve", ("uvicorn", "starlette"), "fcit serve is off"),
    ("privacy", ("dp_accounting",), "[privacy] is off"),
    ("bitsandbytes", ("bitsandbytes",), "model.quantize is off"),
)
"""Part, packages (the first one's version is shown), and what is off without them."""
TRACKERS = ("tensorboard", "wandb", "mlflow")


@dataclass(frozen=True)
class Finding:
    """One part of the machine."""

    part: str
    value: str
    missing: str = ""
    """What does not work with this value; empty if everything does."""


def doctor() -> None:
    """Show what this machine has, and what each missing part disables.

    Example:  fcit doctor
    """
    from rich.text import Text

    verdicts = {
        finding: Text(finding.missing or "good", "yellow" if finding.missing else "green")
        for finding in findings()
    }
    rows = [(finding.part, finding.value, verdict) for finding, verdict in verdicts.items()]
    show_table(rows, "part", "found", "what that means")


def findings() -> Iterator[Finding]:
    """Everything that `fcit doctor` shows, in order."""
    from fcit.engines.workers import cores
    from fcit.worker.cache import cache_folder

    yield Finding("python", platform.python_version())
    yield Finding("fcit", fcit.__version__)
    for name in REQUIRED:
        yield Finding(name, importlib.metadata.version(name))
    yield Finding("cores", str(cores()), "" if cores() > 1 else "clients train one by one")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GB
        low = "" if memory >= 4 else "the mini suite needs 4 GB"
        yield Finding("memory", f"{memory:.1f} GB", low)
    yield _accelerator()
    java = shutil.which("java")
    off = "captions cannot be scored in mode reference (strict needs no Java)"
    yield Finding("Java", java or "none", "" if java else off)
    for part, packages, off in OPTIONAL:
        if all(map(importlib.util.find_spec, packages)):
            yield Finding(part, f"{packages[0]} {importlib.metadata.version(packages[0])}")
        else:
            yield Finding(part, "none", off)
    usable = importlib.util.find_spec("accelerate")
    present = [name for name in TRACKERS if usable and importlib.util.find_spec(name)]
    off = "tracking.to must stay empty, it also needs accelerate (a run's folder has all results)"
    yield Finding("trackers", ", ".join(present) or "none", "" if present else off)
    yield _disk("cache", cache_folder())
    yield _disk("here", Path.cwd())


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return Finding("GPU", f"{card.name}, {card.total_memory / GB:.0f} GB")
    if torch.backends.mps.is_available():
        return Finding("GPU", "Apple MPS")
    slow = "too slow for models of billions of parameters; fine for mini runs"
    return Finding("GPU", "none", slow)


def _disk(part: str, folder: Path) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free / GB
    off = "" if free >= 2 else "the mini suite, features and a run need 2 GB"
    if not os.access(there, os.W_OK):
        off = "cannot be written; set FCIT_CACHE or run elsewhere"
    return Finding(f"disk ({part})", f"{folder}: {free:.1f} GB free", off)


def cache(clear: Annotated[bool, Option("--clear", help="Delete all of it.")] = False) -> None:
    """Show the cache folder and its size (mini suites, image features). Deleting it is safe.

    $FCIT_CACHE names another folder. Do not clear it while a run goes on.

    Example:  fcit cache --clear
    """
    from fcit.worker.cache import cache_folder

    folder = cache_folder()
    kinds = ("mini-*-seed*-*x*", "features", f"{ASIDE}*.part")
    parts = sorted(part for kind in kinds for part in folder.glob(kind))
    sizes = [sum(path.lstat().st_size for path in part.rglob("*")) for part in parts]
    if parts:
        rows = [(part.name, f"{size / 1e6:,.1f}") for part, size in zip(parts, sizes, strict=True)]
        show_table([*rows, None, ("all", f"{sum(sizes) / 1e6:,.1f}")], "part", numbers=["MB"])
    if clear:
        for part in parts:
            shutil.rmtree(part)
    state = "fcit cache --clear deletes these" if parts and not clear else "is empty"
    show(f"{folder}: {state}")
