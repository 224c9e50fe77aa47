"""What a run was made with: packages, commit, base model, device."""

import hashlib
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

import fcit
from fcit.benchmark.datasets import find
from fcit.files import reading
from fcit.models import CHECKPOINTS
from fcit.recipe import config as configs
from fcit.recipe.config import Config
from fcit.recipe.keys import FREE_TO_CHANGE, flat
from fcit.recipe.sections import ModelSection
from fcit.types import FcitError
from fcit.worker.experiment import Experiment

MODEL_FILES = (".safetensors", ".bin", ".gguf", ".json", ".jinja", ".model", ".txt")
"""Of a model's folder: those that decide what it answers."""

BLOCK, APART, WHOLE = 2**16, 2**21, 2**26
"""Of a file of more than WHOLE bytes, BLOCK bytes of every APART are compared: the whole would take
minutes, and training changes whole matrices, which are larger than that."""


def basis(experiment: Experiment) -> dict[str, str]:
    """Digests of files that a run must find unchanged, of those that are on this disk: the mini
    checkpoints that it uses as `base`, the folders of its own `model` and `identity`, its `[data.rules]`
    and its datasets' `dataset.toml` as `rules`."""
    config = experiment.config
    given = {"model": config.model.path, "identity": config.model.identity}
    minis = {"model": "mini-lmm", "identity": "mini-clip"}
    base = [CHECKPOINTS / minis[key] / "model.safetensors" for key in given if not given[key]]
    own = {key: _folder(folder) for key, name in given.items() if (folder := _local(name))}
    rules = [Path(file) for _, file in sorted(config.data.rules.items())]
    if config.data.root:
        root, names = Path(config.data.root), experiment.setting.datasets
        rules += [find(name, root).path(root) / "dataset.toml" for name in names]
    return ({"base": _digest(base)} if base else {}) | own | {"rules": _digest(rules)}


def check_models(then: Mapping[str, str], experiment: Experiment, where: Path) -> None:
    """Raise FcitError where the models on this disk are not those that a run was made with.

    then: the run's `[versions]`. What one of both does not know is not compared.
    """
    now, config = basis(experiment), experiment.config.model
    named = {
        "base": "the mini model",
        "model": f"model.path ({config.path})",
        "identity": f"model.identity ({config.identity})",
    }
    for key, what in named.items():
        if key in now and then.get(key, now[key]) != now[key]:
            raise FcitError(
                f"{where}: {what} is another model than when this run began; put the old one back, or "
                "begin a new run with another --out"
            )


def check_rules(then: Mapping[str, str], experiment: Experiment, where: Path) -> None:
    """Raise FcitError where a run was begun with other scoring rules than there are now."""
    own = [f"{name} ({Path(file).name})" for name, file in experiment.config.data.rules.items()]
    what = f"the rule of {', '.join(own)}, or a dataset.toml," if own else "a dataset.toml"
    now = basis(experiment)["rules"]
    if then.get("rules", now) != now:
        raise FcitError(
            f"{where}: {what} changed since this run began, so its scores would not compare; choose "
            "another --out"
        )


def check_config(here: Config, there: Config, where: Path) -> None:
    """Raise FcitError where a run was begun with another recipe, keys aside that a resumed run may
    change."""
    now, then = (flat(configs.to_table(config)) for config in (here, there))
    for key in sorted({*now, *then} - {*FREE_TO_CHANGE}):
        if now.get(key) != then.get(key):
            raise FcitError(
                f"{where}: holds a run of another config ({key} differs); choose another --out"
            )


def _local(name: str) -> Path | None:
    """The folder of a model, or of a hub's model in the Hugging Face cache."""
    if not name or Path(name).is_dir():
        return Path(name) if name else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # a path: no folder is there
        return None
    return Path(found).parent if isinstance(found, str) else None


def _folder(folder: Path) -> str:
    """Of a model's files: their names, sizes, and blocks of their bytes."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in MODEL_FILES or not file.is_file():
            continue
        with reading(file), file.open("rb") as stream:
            size = file.stat().st_size
            digest.update(f"{file.name} {size} ".encode())
            for start in range(0, size, BLOCK if size <= WHOLE else APART):
                stream.seek(start)
                digest.update(stream.read(BLOCK))
    return digest.hexdigest()[:12]


def _digest(files: Iterable[Path]) -> str:
    """Of the files that there are."""
    present = [file.read_bytes() for file in files if file.is_file()]
    return hashlib.sha256(b"".join(present)).hexdigest()[:12]


def computed(model: ModelSection) -> str:
    """What this machine computes in: `bfloat16 on cpu`."""
    from fcit.models.device import choose

    device, dtype = choose(model.device, model.dtype)
    return f"{str(dtype).removeprefix('torch.')} on {device}"


def versions(experiment: Experiment) -> dict[str, str]:
    """The `[versions]` section of a run's config.toml."""
    packages = ("torch", "transformers", "numpy", "pillow")
    return (
        {"fcit": fcit.__version__}
        | {name: metadata.version(name) for name in packages}
        | {
            "python": platform.python_version(),
            "commit": _commit(),
            **basis(experiment),
            "computed": computed(experiment.config.model),
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
