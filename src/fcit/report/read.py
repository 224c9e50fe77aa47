"""Reads run folders into frozen values, for reports; everything a report says comes from here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fcit.files import read_json, read_lines
from fcit.recipe import config as configs
from fcit.types import FcitError

REFERENCES = ("zeroshot", "individual", "multitask")
"""Methods that only give points of reference: no federated stages, one matrix row or none."""


@dataclass(frozen=True)
class Round:
    """One line of the log: parallel tuples over the round's clients; stage and round from 1.

    faults: client, kind and detail; notes: what the server had to do otherwise.
    """

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
    faults: tuple[tuple[int, str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """One answer to one test sample; `score` is in percent, `similarity` empty in older runs."""

    question_id: str
    image: str
    prompt: str
    prediction: str
    truth: tuple[str, ...]
    score: float
    activation: Mapping[str, float]
    similarity: Mapping[str, float]


@dataclass(frozen=True)
class Tokens:
    """Global identity tokens, one per subspace in order: `values` [K][d], `samples` [K]."""

    values: tuple[tuple[float, ...], ...]
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """A run folder: `matrix[stage][dataset]` in percent, None where nothing was measured."""

    path: Path
    setting: str
    method: str
    scoring: str
    beta: float | None
    seed: int
    datasets: tuple[str, ...]
    stages: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]
    last: float | None
    avg: float | None
    forgetting: Mapping[str, float] = field(default_factory=dict)
    zero_shot: Mapping[str, float] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)
    routing: Mapping[str, float] = field(default_factory=dict)
    ahead: Mapping[str, float] = field(default_factory=dict)
    general: Mapping[str, float] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    rounds: tuple[Round, ...] = ()
    partition: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    tokens: Tokens | None = None
    data: str = ""
    privacy: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def reference(self) -> bool:
        """Whether this is a point of reference and not a federated continual method."""
        return self.method in REFERENCES

    @property
    def unfinished(self) -> bool:
        """Whether stages are still to be run."""
        return len(self.matrix) < len(self.stages)

    def setting_of(self, section: str, key: str, default: Any = None) -> Any:
        """A value of the run's configuration."""
        part = self.config.get(section, {})
        return part.get(key, default) if isinstance(part, Mapping) else default


def read_run(path: Path) -> Run:
    """Read a run folder. Raises FcitError naming the file (and field) that is missing or broken."""
    path = Path(path)
    file = path / "matrix.json"
    if not file.is_file():
        what = "holds no matrix.json" if path.is_dir() else "is not a folder"
        raise FcitError(f"{path}: {what}; give the folder of a run (made by `fcit run`)")
    data = read_json(file)
    if not isinstance(data, dict):
        raise FcitError(
            f"{file}: must hold one JSON object; run `fcit evaluate {path}` to rewrite it"
        )
    beta = data.get("beta")
    try:
        run = Run(
            path=path,
            setting=str(data["setting"]),
            method=str(data["method"]),
            scoring=str(data["scoring"]),
            beta=None if beta is None else float(beta),
            seed=int(data["seed"]),
            datasets=tuple(map(str, data["datasets"])),
            stages=tuple(map(str, data["stages"])),
            matrix=tuple(tuple(_number(cell) for cell in row) for row in data["matrix"]),
            last=_number(data.get("last")),
            avg=_number(data.get("avg")),
            **{key: _numbers(data.get(key)) for key in _MAPS},
            config=_config(path / "config.toml"),
            rounds=_rounds(path / "log.jsonl"),
            partition=_partition(path / "partition.json"),
            data=_data(path / "partition.json"),
            tokens=_tokens(path / "state"),
            privacy={key: _number(value) for key, value in (data.get("privacy") or {}).items()},
        )
    except KeyError as error:
        raise FcitError(f"{file}: the field {error} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise FcitError(f"{file}: a field has a value of the wrong kind: {error}") from None
    for row in run.matrix:
        if len(row) != len(run.datasets):
            raise FcitError(
                f"{file}: matrix: a row of {len(row)} cells for {len(run.datasets)} datasets"
            )
    return run


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read several run folders, each once; a folder of such folders (a sweep's) stands for all below it.

    Raises FcitError when none is given.
    """
    if not paths:
        raise FcitError("no run folder given; name at least one made by `fcit run`")
    found = [run for path in paths for run in _below(Path(path))]
    unique = {path.resolve(): path for path in found}
    return [read_run(path) for path in unique.values()]


def _below(path: Path) -> list[Path]:
    """The run folders at or below a path; the path itself where there are none, to be refused."""
    found: list[Path] = []
    for place, folders, files in os.walk(path):
        folders.sort()
        if "matrix.json" in files:
            found.append(Path(place))
            folders.clear()  # nothing below a run is another
    return found or [path]


def predictions(run: Run, dataset: str, stage: int | None = None) -> list[Prediction]:
    """A dataset's predictions after a stage (default: the final one); [] when there are none."""
    folder = run.path / "predictions" / str(stage) if stage else _final(run)
    file = folder / f"{dataset}.jsonl" if folder else None
    if file is None or file.parent != folder or not file.is_file():
        return []
    return list(_predictions(file))


def _predictions(file: Path) -> Iterator[Prediction]:
    for number, row in enumerate(read_lines(file), 1):
        try:
            truth = row["truth"]
            yield Prediction(
                question_id=str(row["question_id"]),
                image=str(row.get("image") or ""),
                prompt=str(row["prompt"]),
                prediction=str(row["prediction"]),
                truth=tuple(map(str, truth)) if isinstance(truth, list) else (str(truth),),
                score=float(row["score"]),
                activation=_numbers(row.get("activation")),
                similarity=_numbers(row.get("similarity")),
            )
        except KeyError as error:
            raise FcitError(f"{file}, line {number}: the field {error} is missing") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise FcitError(f"{file}, line {number}: a value of the wrong kind: {error}") from None


def _final(run: Run) -> Path | None:
    """The folder of the last stage that has a matrix row (the base model's where there is none)."""
    folder = run.path / "predictions"
    names = [part.name for part in folder.iterdir() if part.is_dir()] if folder.is_dir() else []
    done = sorted(int(name) for name in names if name.isascii() and name.isdigit())
    if not run.matrix:
        return folder / "zero-shot" if "zero-shot" in names else None
    if not done:
        return None
    measured = [stage for stage in done if stage <= len(run.matrix)]
    return folder / str((measured or done)[-1])


_MAPS = ("forgetting", "zero_shot", "chance", "routing", "ahead", "general")


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _numbers(value: Any) -> dict[str, float]:
    return {str(name): float(x) for name, x in (value or {}).items() if x is not None}


def _config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    table = configs.read_toml(file, "configuration")
    try:  # keys that came later have their defaults
        return configs.to_table(configs.load(file)) | {"versions": table.get("versions", {})}
    except FcitError:  # of another fcit, with keys that are unknown here
        return table


def _rounds(file: Path) -> tuple[Round, ...]:
    rounds: list[Round] = []
    for number, row in enumerate(read_lines(file) if file.is_file() else [], 1):
        try:
            one = Round(
                stage=int(row["stage"]),
                round=int(row["round"]),
                clients=tuple(map(int, row["clients"])),
                tasks=tuple(map(str, row["tasks"])),
                samples=tuple(map(int, row["samples"])),
                losses=tuple(map(float, row["losses"])),
                subspaces=tuple(map(str, row["subspaces"])),
                seconds=float(row["seconds"]),
                bytes_down=tuple(map(int, row["bytes_down"])),
                bytes_up=tuple(map(int, row["bytes_up"])),
                faults=tuple(map(_fault, row.get("faults", ()))),
                notes=tuple(map(str, row.get("notes", ()))),
            )
        except KeyError as error:
            raise FcitError(f"{file}, line {number}: the field {error} is missing") from None
        except (TypeError, ValueError) as error:
            raise FcitError(f"{file}, line {number}: a value of the wrong kind: {error}") from None
        rounds.append(one)
    return tuple(rounds)


def _fault(row: Any) -> tuple[int, str, str]:
    return int(row["client"]), str(row["kind"]), str(row["detail"])


def _partition(file: Path) -> dict[str, tuple[int, ...]]:
    data = read_json(file) if file.is_file() else {"datasets": {}}
    try:
        return {str(name): tuple(map(int, counts)) for name, counts in data["datasets"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        said = f"{file}: must hold {{dataset: [samples per client]}} as datasets"
        raise FcitError(said) from None


def _data(file: Path) -> str:
    """The data folder the run was made on."""
    data = read_json(file) if file.is_file() else None
    return str(data.get("data", "")) if isinstance(data, dict) else ""


def _tokens(state: Path) -> Tokens | None:
    index = state / "state.json"
    data = read_json(index) if index.is_file() else None
    extras = data.get("extras") if isinstance(data, dict) else None
    if not isinstance(extras, dict) or "identity" not in extras:
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load

    file = state / str(extras["identity"])
    if not file.resolve().is_relative_to(state.resolve()):
        raise FcitError(f"{index}: extras.identity: {extras['identity']} leaves the run's folder")
    try:
        held = load(file.read_bytes())
        values = tuple(tuple(map(float, row)) for row in held["tokens"])
        return Tokens(values, tuple(int(count) for count in held["samples"]))
    except OSError as error:
        raise FcitError(f"{file}: cannot be read: {error.strerror}") from None
    except (SafetensorError, KeyError, TypeError) as error:
        raise FcitError(f"{file}: not a file of identity tokens: {error}") from None
