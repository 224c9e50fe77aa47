"""What a run's numbers were made with: packages, commit, base model, device."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from fcit.models import CHECKPOINTS
from fcit.recipe.config import Config


def base(config: Config) -> str:
    """A digest of those of the package's own checkpoints that a configuration uses."""
    digest = hashlib.sha256()
    part = config.model
    named = (("mini-lmm", part.path), ("mini-clip", part.identity))
    for name in (name for name, other in named if not other):
        digest.update((CHECKPOINTS / name / "model.safetensors").read_bytes())
    return digest.hexdigest()[:12]


def versions(config: Config) -> dict[str, str]:
    """What the numbers were made with."""
    packages = ("fcit", "torch", "transformers", "numpy", "pillow")
    found = {name: importlib.metadata.version(name) for name in packages}
    from fcit.models.device import choose

    device, dtype = choose(config.model.device, config.model.dtype)
    computed = f"{str(dtype).removeprefix('torch.')} on {device}"
    return found | {
        "python": platform.python_version(),
        "commit": _commit(),
        "base": base(config),
        "computed": computed,
    }


def _commit() -> str:
    """The commit of fcit's own checkout; "unknown" where it was installed without one."""
    here = Path(__file__).parent
    if not (here.parents[2] / ".git").exists():
        return "unknown"
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
