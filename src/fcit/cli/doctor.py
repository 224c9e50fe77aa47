"""What this machine has, and what each missing part would switch off."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

GB = 1 << 30
TRACKERS = ("tensorboard", "wandb", "mlflow")


@dataclass(frozen=True)
class Finding:
    """One part of the machine: what was found, and, where it falls short, what that switches off."""

    part: str
    found: str
    missing: str = ""


def findings() -> list[Finding]:
    """Everything `fcit doctor` shows, in order."""
    return [
        *_versions(),
        *_machine(),
        _accelerator(),
        _java(),
        _flower(),
        _peft(),
        _trackers(),
        _serve(),
        *_places(),
    ]


def examine() -> None:
    """Print the findings as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("part", "found", "what that means")
    for one in findings():
        mark = f"[yellow]{one.missing}[/yellow]" if one.missing else "[green]good[/green]"
        table.add_row(one.part, one.found, mark)
    Console().print(table)


def _versions() -> list[Finding]:
    names = ("fcit", "torch", "transformers", "safetensors", "numpy", "pillow")
    python = Finding("python", platform.python_version())
    return [python, *(Finding(name, importlib.metadata.version(name)) for name in names)]


def _machine() -> list[Finding]:
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    few = "" if cores > 1 else "clients train one after another"
    found = [Finding("cores", str(cores), few)]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GB
        low = "" if memory >= 4 else "the mini suite wants 4 GB"
        found.append(Finding("memory", f"{memory:.1f} GB", low))
    return found


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return Finding("GPU", f"{card.name}, {card.total_memory / GB:.0f} GB")
    if torch.backends.mps.is_available():
        return Finding("GPU", "Apple MPS")
    return Finding(
        "GPU", "none", "models of billions of parameters are out of reach; mini runs well"
    )


def _java() -> Finding:
    found = shutil.which("java")
    off = "captions cannot be scored in mode reference (strict needs no Java)"
    return Finding("Java", found or "none", "" if found else off)


def _flower() -> Finding:
    if importlib.util.find_spec("flwr"):
        return Finding("Flower", importlib.metadata.version("flwr"))
    return Finding("Flower", "none", "--engine flower is off (the local engine needs nothing)")


def _peft() -> Finding:
    if importlib.util.find_spec("peft"):
        return Finding("PEFT", importlib.metadata.version("peft"))
    return Finding("PEFT", "none", "nothing: adapters are written in PEFT's format without it")


def _trackers() -> Finding:
    found = [name for name in TRACKERS if importlib.util.find_spec(name)]
    off = "" if found else "tracking.to stays empty (a run's folder has all results without it)"
    return Finding("trackers", ", ".join(found) or "none", off)


def _serve() -> Finding:
    if all(map(importlib.util.find_spec, ("starlette", "uvicorn"))):
        return Finding("serve", f"uvicorn {importlib.metadata.version('uvicorn')}")
    return Finding("serve", "none", "fcit serve is off (pip install 'fcit[serve]')")


def _places() -> list[Finding]:
    from fcit.worker.cache import cache_folder

    found: list[Finding] = []
    for part, place in (("cache", cache_folder()), ("here", Path.cwd())):
        there = next(path for path in (place, *place.parents) if path.exists())
        free = shutil.disk_usage(there).free / GB
        off = "" if free >= 2 else "the mini suite, features and a run want 2 GB"
        if not os.access(there, os.W_OK):
            off = "cannot be written; set FCIT_CACHE or run elsewhere"
        found.append(Finding(f"disk ({part})", f"{place}: {free:.1f} GB free", off))
    return found
