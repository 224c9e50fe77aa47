"""What a run was made with: packages, commit, base model, device."""

import hashlib
import inspect
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
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

MODEL_FILES = (
    "*.safetensors", "*.bin", "*.gguf", "*config*.json", "*token*.json", "vocab*", "merges.txt",
    "*.model", "chat_template*", "modules.json", "[0-9]_*/config.json",
)  # fmt: skip
"""Of a model's folder: those that decide what it answers (`1_Pooling` is a sentence encoder's)."""

BLOCK, APART, WHOLE = 2**16, 2**21, 2**26
"""Of a file of more than WHOLE bytes, BLOCK bytes of every APART are compared: the whole would take
minutes, and training changes whole matrices, which are larger than that."""


def models(experiment: Experiment) -> dict[str, str]:
    """Digests of the models that a run must find unchanged: the mini checkpoints that it uses as `base`,
    the folders of its own `model` and `identity`. Those of a hub have no folder, and are not compared."""
    config = experiment.config.model
    given = {"model": config.path, "identity": config.identity}
    minis = {"model": "mini-lmm", "identity": "mini-clip"}
    base = [CHECKPOINTS / minis[key] / "model.safetensors" for key in given if not given[key]]
    own = {key: Path(name) for key, name in given.items() if name and Path(name).is_dir()}
    digests = {key: _folder(folder) for key, folder in own.items()}
    return ({"base": _digest(base)} if base else {}) | digests


def scoring(experiment: Experiment) -> str:
    """A digest of the rules that a run must find unchanged: its `[data.rules]` and its datasets'
    `dataset.toml`."""
    config = experiment.config
    rules = [Path(file) for _, file in sorted(config.data.rules.items())]
    if config.data.root:
        root, names = Path(config.data.root), experiment.setting.datasets
        rules += [find(name, root).path(root) / "dataset.toml" for name in names]
    return _digest(rules)


def check_models(then: Mapping[str, str], experiment: Experiment, where: Path) -> None:
    """Raise FcitError where the models on this disk are not those that a run was made with.

    then: the run's `[versions]`. What one of both does not know is not compared.
    """
    now, config = models(experiment), experiment.config.model
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
    now = scoring(experiment)
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


def _folder(folder: Path) -> str:
    """Of a model's files: their names, sizes, and blocks of their bytes."""
    files = sorted({file for kind in MODEL_FILES for file in folder.glob(kind) if file.is_file()})
    facts = ((file, file.stat()) for file in files)
    return _contents(tuple((file, fact.st_size, fact.st_mtime_ns) for file, fact in facts))


@cache
def _contents(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Of files with their sizes and times of change, so that no file is read twice."""
    digest = hashlib.sha256()
    for file, size, _ in files:
        with reading(file), file.open("rb") as stream:
            digest.update(f"{file.name} {size} ".encode())
            for start in range(0, size, BLOCK if size <= WHOLE else APART):
                stream.seek(start)
                digest.update(stream.read(BLOCK))
    return digest.hexdigest()[:12]


def _digest(files: Iterable[Path]) -> str:
    """Of the files that there are."""
    return _joined(tuple((file, file.stat().st_mtime_ns) for file in files if file.is_file()))


@cache
def _joined(files: tuple[tuple[Path, int], ...]) -> str:
    """Of files with their times of change: a sweep asks for the mini models' with every run."""
    return hashlib.sha256(b"".join(file.read_bytes() for file, _ in files)).hexdigest()[:12]


def computed(model: ModelSection) -> str:
    """What this machine computes in: `bfloat16 on cpu`."""
    from fcit.models.device import choose

    device, dtype = choose(model.device, model.dtype)
    return f"{str(dtype).removeprefix('torch.')} on {device}"


def elsewhere(then: Mapping[str, str], model: ModelSection) -> str:
    """What this machine computes in, where a run with these `[versions]` was begun in something else."""
    now = computed(model)
    return now if then.get("computed", now) != now else ""


def method_file(experiment: Experiment) -> str:
    """A digest of the method's file."""
    return _digest([Path(inspect.getfile(type(experiment.method)))])


def changes(then: Mapping[str, str], experiment: Experiment) -> Iterator[str]:
    """What is another than when a run began, in one line each: it may go on, but its numbers may differ.

    then: the run's `[versions]`. What it does not know is not compared.
    """
    if now := elsewhere(then, experiment.config.model):
        told = "its numbers will not be those of one machine"
        yield f"continuing in {now}, begun in {then['computed']}: {told}"
    now = method_file(experiment)
    if then.get("method_file", now) != now:
        yield (
            f"the file of the method {experiment.method.name} has changed since this run began; its "
            "numbers may not be those of one method"
        )


def versions(experiment: Experiment) -> dict[str, str]:
    """The `[versions]` section of a run's config.toml."""
    packages = ("torch", "transformers", "numpy", "pillow")
    return (
        {"fcit": fcit.__version__}
        | {name: metadata.version(name) for name in packages}
        | {
            "python": platform.python_version(),
            "commit": _commit(),
            "method_file": method_file(experiment),
            **models(experiment),
            "rules": scoring(experiment),
            "computed": computed(experiment.config.model),
        }
    )


@cache
def _commit() -> str:
    """The commit of fcit's own checkout, with "-dirty" where a file differs from it or is not in it, such
    as a method's; "unknown" if it was installed without one."""
    source = Path(__file__).parents[2]
    if not (source.parent / ".git").exists():
        return "unknown"
    commit = _git(source, "describe", "--always", "--dirty", "--abbrev=12")
    new = commit and _git(source, "ls-files", "--others", "--exclude-standard")
    return commit + "-dirty" * bool(new and not commit.endswith("-dirty")) or "unknown"


def _git(folder: Path, *words: str) -> str:
    """What git prints; "" where it cannot."""
    try:
        git = ["git", "-C", str(folder), *words]
        return subprocess.run(git, capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
