"""What a run was made with: packages, commit, base model, device."""

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from fcit.models import CHECKPOINTS
from fcit.recipe.config import Config


def base(config: Config) -> str:
    """A digest of the mini checkpoints that a configuration uses (of none: that of nothing)."""
    digest = hashlib.sha256()
    for name, other in (("mini-lmm", config.model.path), ("mini-clip", config.model.identity)):
        if not other:
            digest.update((CHECKPOINTS / name / "model.safetensors").read_bytes())
    return digest.hexdigest()[:12]


def versions(config: Config) -> dict[str, str]:
    """The `[versions]` section of a run's config.toml."""
    from fcit.models.device import choose

    packages = ("fcit", "torch", "transformers", "numpy", "pillow")
    device, dtype = choose(config.model.device, config.model.dtype)
    return {name: importlib.metadata.version(name) for name in packages} | {
        "python": platform.python_version(),
        "commit": _commit(),
        "base": base(config),
        "computed": f"{str(dtype).removeprefix('torch.')} on {device}",
    }


def _commit() -> str:
    """The commit of fcit's own checkout; "unknown" if it was installed without one."""
    here = Path(__file__).parent
    if not (here.parents[2] / ".git").exists():
        return "unknown"
    words = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        git = subprocess.run(words, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return git.stdout.strip() or "unknown"
