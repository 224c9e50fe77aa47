"""What the files of a run folder hold, checked as they are read."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from fcit.files import reading, write_text
from fcit.rounds.server import Position, Round
from fcit.types import Fault, FcitError
from fcit.weights import nbytes

T = TypeVar("T")


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
    heirs: Mapping[str, str] = field(default_factory=dict)
    """For every adapter that has merged into another: the one that it is in now."""


def trained(rounds: Sequence[RoundLog]) -> Iterator[tuple[RoundLog, int, str, str]]:
    """Round, client, task and name of every adapter that rounds trained. One that has merged into another
    by the last of them has that one's name."""
    heirs = rounds[-1].heirs if rounds else {}
    for row in rounds:
        for client, task, names in zip(row.clients, row.tasks, row.subspaces, strict=True):
            for name in names.split(","):
                yield row, client, task, heirs.get(name, name)


def log_line(position: Position, report: Round, seconds: float) -> dict[str, Any]:
    """A round's line of log.jsonl: what it did, and what it cost; lists run over its accepted clients.

    seconds: what the round took.
    """
    tokens = {identity.client: nbytes({"token": identity.token}) for identity in report.identities}
    jobs, updates = report.jobs, report.updates
    row: dict[str, Any] = {
        "stage": position.stage + 1,
        "round": position.rounds,
        "clients": [job.turn.client for job in jobs],
        "tasks": [job.turn.task.name for job in jobs],
        "samples": [update.samples for update in updates],
        "losses": [round(update.metrics["loss"], 5) for update in updates],
        "subspaces": [",".join(update.adapters) for update in updates],
        "seconds": round(seconds, 3),
        "bytes_down": list(report.bytes_down),
        "bytes_up": [
            size + tokens.get(update.client, 0)
            for update, size in zip(updates, report.bytes_up, strict=True)
        ],
        "bytes_token": [tokens.get(update.client, 0) for update in updates],
    }
    if report.faults:
        row["faults"] = [asdict(fault) for fault in report.faults]
    if report.notes:
        row["notes"] = list(report.notes)
    if report.heirs:
        row["heirs"] = dict(report.heirs)
    return row


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
    """The cosine to every subspace's identity token, or its score; empty in older runs."""


@dataclass(frozen=True)
class Manifest:
    """state.json: how far the run is, and the file of every adapter, extra and memory by its name."""

    stage: int
    rounds: int
    ended: bool = False
    adapters: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, str] = field(default_factory=dict)
    optimizer: Mapping[str, str] = field(default_factory=dict)
    clients: Mapping[str, str] = field(default_factory=dict)
    optimiser: Mapping[str, str] = field(default_factory=dict)
    """Of an earlier version of fcit."""


@dataclass(frozen=True)
class Rows:
    """The accuracies in matrix.json (percent); None where a dataset was not seen yet."""

    datasets: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]

    def __post_init__(self) -> None:
        """Raise ValueError on a row of another width."""
        for row in self.matrix:
            if len(row) != len(self.datasets):
                raise ValueError(f"a row of {len(row)} cells for {len(self.datasets)} datasets")


def parse(kind: type[T], table: Any, source: str) -> T:
    """A JSON object as one of these dataclasses. Raises FcitError naming the source and field."""
    try:
        return _adapter(kind).validate_python(table)
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(map(str, fault["loc"]))
        if fault["type"] == "missing":
            raise FcitError(f"{source}: the field {name!r} is missing") from None
        message = fault["msg"].removeprefix("Value error, ")
        raise FcitError(f"{source}: {name}: {message}".replace(": : ", ": ")) from None


_adapter = cache(TypeAdapter)


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its SHA-256 under `digest`."""
    return {"digest": sha256(json.dumps(value, sort_keys=True).encode())} | dict(value)


def unseal(value: Any, source: Path | str, sealed: bool) -> dict[str, Any]:
    """A JSON object without its digest, which must be right; `sealed`: whether there must be one."""
    if not isinstance(value, dict):
        raise FcitError(f"{source}: must be a JSON object; restore it from a copy")
    if not value:
        raise FcitError(f"{source}: is empty; restore it from a copy")
    plain = {key: part for key, part in value.items() if key != "digest"}
    if not sealed and value != plain:
        raise FcitError(
            f"{source}: has a digest, but the run's config.toml has none: config.toml is missing or was "
            "changed after fcit wrote it; restore it from a copy"
        )
    compare(source, value, seal(plain) if sealed else plain)
    return plain


def compare(source: Path | str, value: object, written: object) -> None:
    """Raise FcitError where a file does not hold what was written."""
    if value != written:
        raise FcitError(
            f"{source}: was changed after fcit wrote it (its digest is another); restore it from a copy, "
            "or run again with another --out"
        )


def write_digested(path: Path, text: str) -> None:
    """Write a text file and, before it, its digest beside it as `sha256sum` writes it.

    Until the new text is there, the digest of the old one stays in a second line: whenever the process is
    killed, the file has its digest.
    """
    beside = digest_file(path)
    replaces = path.is_file() and beside.is_file()
    old = beside.read_text(encoding="utf-8", errors="replace") if replaces else ""
    line = _digest_line(path, text.encode())
    write_text(beside, line + old)
    write_text(path, text)
    if old:
        write_text(beside, line)


def compare_digest(path: Path) -> None:
    """Raise FcitError where a file does not have the digest beside it."""
    beside = digest_file(path)
    with reading(beside, "digest of the answers"):
        lines = beside.read_text(encoding="utf-8").splitlines(keepends=True)
        known = _digest_line(path, path.read_bytes()) in lines
    compare(f"{path} or {beside.name}", known, True)


def digest_file(path: Path) -> Path:
    """The file with the digest of another."""
    return path.with_name(f"{path.name}.sha256")


def _digest_line(path: Path, data: bytes) -> str:
    return f"{sha256(data)}  {path.name}\n"


def tensor_file(kind: str, name: str, data: bytes) -> str:
    """The name of a file of tensors: with a digest of its own name and content."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "_", name)
    return f"{kind}-{plain}-{sha256(name.encode() + data)[:12]}.safetensors"


def sha256(data: bytes) -> str:
    """The digest of a file's content."""
    return hashlib.sha256(data).hexdigest()
