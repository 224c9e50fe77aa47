"""What a run was made with: packages, commit, base model, device."""

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import fcit
from fcit.benchmark.datasets import find
from fcit.models import CHECKPOINTS
from fcit.worker.experiment import Experiment


def basis(experiment: Experiment) -> dict[str, str]:
    """Digests of files that a run must find unchanged: the mini checkpoints that it uses as `base`, its
    `[data.rules]` and its datasets' `dataset.toml` as `rules`."""
    config = experiment.config
    minis = (("mini-lmm", config.model.path), ("mini-clip", config.model.identity))
    base = [CHECKPOINTS / name / "model.safetensors" for name, own in minis if not own]
    rules = [Path(file) for _, file in sorted(config.data.rules.items())]
    if config.data.root:
        root, names = Path(config.data.root), experiment.setting.datasets
        rules += [find(name, root).path(root) / "dataset.toml" for name in names]
    return {"base": _digest(base), "rules": _digest(rules)}


def _digest(files: Iterable[Path]) -> str:
    """Of the files that there are."""
    present = [file.read_bytes() for file in files if file.is_file()]
    return hashlib.sha256(b"".join(present)).hexdigest()[:12]


def versions(experiment: Experiment) -> dict[str, str]:
    """The `[versions]` section of a run's config.toml."""
    from fcit.models.device import choose

    packages = ("torch", "transformers", "numpy", "pillow")
    model = experiment.config.model
    device, dtype = choose(model.device, model.dtype)
    return (
        {"fcit": fcit.__version__}
        | {name: metadata.version(name) for name in packages}
        | {
            "python": platform.python_version(),
            "commit": _commit(),
            **basis(experiment),
            "computed": f"{str(dtype).removeprefix('torch.')} on {device}",
        }
    )


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
