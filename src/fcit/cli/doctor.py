"""`fcit doctor`: what this machine has, and what each missing part disables."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

GB = 1 << 30

REQUIRED = ("fcit", "torch", "transformers", "safetensors", "numpy", "pillow")
OPTIONAL = (
    ("Flower", ("flwr",), "--engine flower is off (the local engine needs nothing)"),
    ("PEFT", ("peft",), "fcit bench is off (adapters are written in PEFT's format without it)"),
    ("serve", ("uvicorn", "starlette"), "fcit serve is off (pip install 'fcit[serve]')"),
)
"""Part, packages (the first one's version is shown), and what is off without them."""
TRACKERS = ("tensorboard", "wandb", "mlflow")


@dataclass(frozen=True)
class Finding:
    """One part of the machine."""

    part: str
    found: str
    missing: str = ""
    """What does not work with what was found; empty if everything does."""


def doctor() -> None:
    """Show what this machine has, and what each missing part disables."""
    from fcit.cli.screen import show, table

    rows = table("part", "found", "what that means")
    for finding in findings():
        mark = f"[yellow]{finding.missing}[/yellow]" if finding.missing else "[green]good[/green]"
        rows.add_row(finding.part, finding.found, mark)
    show(rows)


def findings() -> list[Finding]:
    """Everything that `fcit doctor` shows, in order."""
    return [
        Finding("python", platform.python_version()),
        *(Finding(name, importlib.metadata.version(name)) for name in REQUIRED),
        *_machine(),
        _accelerator(),
        _java(),
        *(_optional(*part) for part in OPTIONAL),
        _trackers(),
        *_disks(),
    ]


def _machine() -> list[Finding]:
    from fcit.engines.workers import cores

    findings = [Finding("cores", str(cores()), "" if cores() > 1 else "clients train one by one")]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GB
        low = "" if memory >= 4 else "the mini suite needs 4 GB"
        findings.append(Finding("memory", f"{memory:.1f} GB", low))
    return findings


def _accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return Finding("GPU", f"{card.name}, {card.total_memory / GB:.0f} GB")
    if torch.backends.mps.is_available():
        return Finding("GPU", "Apple MPS")
    return Finding(
        "GPU", "none", "too slow for models of billions of parameters; fine for mini runs"
    )


def _java() -> Finding:
    path = shutil.which("java")
    off = "captions cannot be scored in mode reference (strict needs no Java)"
    return Finding("Java", path or "none", "" if path else off)


def _optional(part: str, packages: tuple[str, ...], off: str) -> Finding:
    if all(map(importlib.util.find_spec, packages)):
        return Finding(part, f"{packages[0]} {importlib.metadata.version(packages[0])}")
    return Finding(part, "none", off)


def _trackers() -> Finding:
    present = [name for name in TRACKERS if importlib.util.find_spec(name)]
    off = "tracking.to must stay empty (a run's folder has all results without it)"
    return Finding("trackers", ", ".join(present) or "none", "" if present else off)


def _disks() -> list[Finding]:
    from fcit.worker.cache import cache_folder

    findings: list[Finding] = []
    for part, folder in (("cache", cache_folder()), ("here", Path.cwd())):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free / GB
        off = "" if free >= 2 else "the mini suite, features and a run need 2 GB"
        if not os.access(there, os.W_OK):
            off = "cannot be written; set FCIT_CACHE or run elsewhere"
        findings.append(Finding(f"disk ({part})", f"{folder}: {free:.1f} GB free", off))
    return findings
