"""Reads a run folder into frozen values; everything a report shows comes from here."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from fcit.files import json_lines, read_json
from fcit.methods import TokenRouted, find
from fcit.recipe import config as configs
from fcit.types import Fault, FcitError

T = TypeVar("T")

REFERENCES = ("zeroshot", "individual", "multitask")
"""Methods that only give reference points: no federated stages, one matrix row or none."""


def _without_nulls(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values or {}
    return {name: value for name, value in values.items() if value is not None}


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Numbers = Annotated[Mapping[str, float], BeforeValidator(_without_nulls)]
"""Numbers by name (percent by dataset, where nothing else is said); what was not measured is absent."""


@dataclass(frozen=True)
class RoundLog:
    """One line of log.jsonl: tuples have one entry per client of the round; stage and round from 1."""

    stage: int
    round: int
    clients: tuple[int, ...]
    tasks: tuple[str, ...]
    samples: tuple[int, ...]
    losses: tuple[float, ...]
    subspaces: tuple[str, ...]
    seconds: float
    bytes_down: tuple[int, ...]
    bytes_up: tuple[int, ...]
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    """Where the server had to fall back to another rule."""


@dataclass(frozen=True)
class Prediction:
    """The model's answer to one test sample."""

    __pydantic_config__ = ConfigDict(coerce_numbers_to_str=True)

    question_id: str
    prompt: str
    prediction: str
    truth: Annotated[tuple[str, ...], BeforeValidator(_as_list)]
    score: float
    """In percent."""
    image: Annotated[str, BeforeValidator(lambda value: value or "")] = ""
    activation: Numbers = field(default_factory=dict)
    """The activation factor of every subspace."""
    similarity: Numbers = field(default_factory=dict)
    """The cosine to every subspace's identity token; empty in older runs."""


@dataclass(frozen=True)
class RunData:
    """All that a report uses of a run folder."""

    __pydantic_config__ = ConfigDict(coerce_numbers_to_str=True)

    path: Path
    setting: str
    method: str
    scoring: str
    seed: int
    datasets: tuple[str, ...]
    stages: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]
    """Percent by stage and dataset; None where nothing was measured."""
    beta: float | None = None
    last: float | None = None
    avg: float | None = None
    forgetting: Numbers = field(default_factory=dict)
    zero_shot: Numbers = field(default_factory=dict)
    chance: Numbers = field(default_factory=dict)
    routing: Numbers = field(default_factory=dict)
    ahead: Numbers = field(default_factory=dict)
    general: Numbers = field(default_factory=dict)
    privacy: Annotated[Mapping[str, Any], BeforeValidator(lambda value: value or {})] = field(
        default_factory=dict
    )
    config: Mapping[str, Any] = field(default_factory=dict)
    rounds: tuple[RoundLog, ...] = ()
    partition: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Training samples of every client, by dataset."""
    data: str = ""
    """The data folder the run was made on."""
    tokens: tuple[tuple[float, ...], ...] = ()
    """The server's identity tokens, one per subspace in order."""

    @property
    def reference(self) -> bool:
        """Whether this is a reference point and not a federated continual method."""
        return self.method in REFERENCES

    @property
    def unfinished(self) -> bool:
        """Whether stages are still to be run."""
        return len(self.matrix) < len(self.stages)

    def setting_of(self, section: str, key: str, default: Any = None) -> Any:
        """A value of the run's configuration."""
        table = self.config.get(section, {})
        return table.get(key, default) if isinstance(table, Mapping) else default


@dataclass(frozen=True)
class _Partition:
    datasets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    data: str = ""


def read_run(path: Path) -> RunData:
    """Read a run folder. Raises FcitError naming the file (and field) that is missing or broken."""
    path = Path(path)
    file = path / "matrix.json"
    if not file.is_file():
        problem = "holds no matrix.json" if path.is_dir() else "is not a folder"
        raise FcitError(f"{path}: {problem}; give the folder of a run (made by `fcit run`)")
    table = read_json(file)
    if not isinstance(table, dict):
        raise FcitError(
            f"{file}: must hold one JSON object; run `fcit evaluate {path}` to rewrite it"
        )
    log, split = path / "log.jsonl", path / "partition.json"
    config = _config(path / "config.toml")
    partition = (
        _parse(_Partition, read_json(split), str(split)) if split.is_file() else _Partition()
    )
    parts = {
        "path": path,
        "config": config,
        "rounds": tuple(_rows(RoundLog, log)) if log.is_file() else (),
        "partition": partition.datasets,
        "data": partition.data,
        "tokens": _tokens(path / "state", token_routed(str(table.get("method")), config)),
    }
    run = _parse(RunData, table | parts, str(file))
    for row in run.matrix:
        if len(row) != len(run.datasets):
            raise FcitError(
                f"{file}: matrix: a row of {len(row)} cells for {len(run.datasets)} datasets"
            )
    return run


def read_runs(paths: Sequence[Path]) -> list[RunData]:
    """Read run folders, each once; a folder of run folders (a sweep's) stands for all below it.

    Raises FcitError when none is given.
    """
    if not paths:
        raise FcitError("no run folder given; name at least one made by `fcit run`")
    folders = {folder.resolve(): folder for path in paths for folder in _run_folders(Path(path))}
    return [read_run(folder) for folder in folders.values()]


def _run_folders(path: Path) -> list[Path]:
    """The run folders at or below a path; the path itself where there are none, to be refused."""
    found: list[Path] = []
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        if "matrix.json" in files:
            found.append(Path(folder))
            subfolders.clear()  # a run folder holds no other
    return found or [path]


def predictions(run: RunData, dataset: str, stage: int | None = None) -> list[Prediction]:
    """A dataset's predictions after a stage (default: the final one); [] when there are none."""
    folder = run.path / "predictions" / str(stage) if stage else _final_predictions(run)
    file = folder / f"{dataset}.jsonl" if folder else None
    if file is None or file.parent != folder or not file.is_file():
        return []
    return list(_rows(Prediction, file))


def _final_predictions(run: RunData) -> Path | None:
    """The folder of the last stage that has a matrix row (the base model's where there is none)."""
    folder = run.path / "predictions"
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    if not run.matrix:
        return folder / "zero-shot" if "zero-shot" in names else None
    stages = sorted(int(name) for name in names if name.isascii() and name.isdigit())
    measured = [stage for stage in stages if stage <= len(run.matrix)] or stages
    return folder / str(measured[-1]) if measured else None


def _config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    table = configs.read_toml(file, "configuration")
    try:  # fill in the defaults of keys that are newer than the run
        return configs.to_table(configs.load(file)) | {"versions": table.get("versions", {})}
    except FcitError:  # made by another fcit, with keys that are unknown here
        return table


def token_routed(name: str, config: Mapping[str, Any]) -> TokenRouted | None:
    """The run's method, if it routes by identity tokens; None for methods of another fcit."""
    options = {key: value for key, value in config.get("method", {}).items() if key != "name"}
    try:
        method = find(name)(**options)
    except (FcitError, TypeError):
        return None
    return method if isinstance(method, TokenRouted) else None


def _tokens(state: Path, method: TokenRouted | None) -> list[list[float]]:
    index = state / "state.json"
    table = read_json(index) if index.is_file() else None
    extras = table.get("extras") if isinstance(table, dict) else None
    if not method or not isinstance(extras, dict) or method.tokens_name not in extras:
        return []
    name = method.tokens_name
    from safetensors import SafetensorError
    from safetensors.numpy import load

    file = state / str(extras[name])
    if not file.resolve().is_relative_to(state.resolve()):
        raise FcitError(f"{index}: extras.{name}: {extras[name]} leaves the run's folder")
    try:
        return load(file.read_bytes())["tokens"].astype(float).tolist()
    except OSError as error:
        raise FcitError(f"{file}: cannot be read: {error.strerror}") from None
    except (SafetensorError, KeyError) as error:
        raise FcitError(f"{file}: not a file of identity tokens: {error}") from None


# -- checking what the files hold ----------------------------------------------------------------------


def _rows(kind: type[T], file: Path) -> Iterator[T]:
    for number, row in json_lines(file):
        yield _parse(kind, row, f"{file}, line {number}")


def _parse(kind: type[T], table: Any, source: str) -> T:
    """A JSON object as one of the dataclasses above. Raises FcitError naming the source and field."""
    try:
        return _adapter(kind).validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise FcitError(f"{source}: the field {name!r} is missing") from None
        message = "must be a JSON object" if not name else f"{name}: {first['msg']}"
        raise FcitError(f"{source}: {message}") from None


_adapter = cache(TypeAdapter)
