"""A run's folder: all that a run needs to continue after kill -9, and that a report needs.

The state is committed by renaming one file, `state/state.json`. It names the safetensors files of the
adapters, extras, optimizer and client memories by their content. Files it no longer names are removed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcit.files import (
    read_json,
    read_lines,
    write_json,
    write_lines,
    write_text,
    written_aside,
)
from fcit.rounds.server import Position
from fcit.types import FcitError, State, Weights
from fcit.weights import KINDS, kinds, load, to_bytes

if TYPE_CHECKING:
    from torch import Tensor

ZERO_SHOT = "zero-shot"
CLIENTS = "clients"


class RunFolder:
    """Paths and whole-file reads and writes of one run."""

    def __init__(self, path: Path):
        self.path = path
        self.states = path / "state"
        self.config, self.matrix = path / "config.toml", path / "matrix.json"
        self.log, self.partition = path / "log.jsonl", path / "partition.json"

    def begun(self) -> bool:
        """Whether a run has begun here: there are answers or a state."""
        return self.config.is_file() and (
            self.position() is not None
            or any((self.path / name).is_dir() for name in ("predictions", "scores"))
        )

    def commit(
        self, state: State, position: Position, memory: Mapping[int, Weights] | None = None
    ) -> None:
        """Make this the state to resume from. If it is cut off, the state before stays."""
        clients = {str(client): weights for client, weights in sorted((memory or {}).items())}
        groups = dict(zip(KINDS, kinds(state), strict=True)) | {CLIENTS: clients}
        manifest: dict[str, Any] = asdict(position)
        for kind, parts in groups.items():
            names = {name: self._write(kind, name, weights) for name, weights in parts.items()}
            manifest[kind] = {name: file for name, file in names.items() if file}
        write_json(self.states / "state.json", manifest)
        named = {file for kind in groups for file in manifest[kind].values()}
        for file in self.states.glob("*.safetensors"):
            if file.name not in named:
                file.unlink()

    def _write(self, kind: str, name: str, weights: Mapping[str, Tensor]) -> str:
        """Write weights, unless they are there already; the name of their file ("" for no tensors)."""
        if not weights:
            return ""
        data = to_bytes(weights)
        plain = re.sub(r"[^A-Za-z0-9.-]+", "_", name)
        file = f"{kind}-{plain}-{hashlib.sha256(name.encode() + data).hexdigest()[:12]}.safetensors"
        if not (self.states / file).is_file():
            with written_aside(self.states / file) as aside:
                aside.write_bytes(data)
        return file

    def position(self) -> Position | None:
        """How far the run came, or None when nothing was committed."""
        path = self.states / "state.json"
        if not path.is_file():
            return None
        manifest = read_json(path)
        return Position(manifest["stage"], manifest["rounds"], manifest["ended"])

    def state(self) -> tuple[State, dict[int, Weights]]:
        """The committed state and the clients' memories."""
        manifest = read_json(self.states / "state.json")
        *parts, clients = (
            {name: load(self.states / file) for name, file in manifest.get(kind, {}).items()}
            for kind in (*KINDS, CLIENTS)
        )
        return State(*parts), {int(client): weights for client, weights in clients.items()}

    def require_resumable(self) -> None:
        """Raise FcitError when an earlier version of fcit left an optimizer's memory here, which this
        one does not read: going on without it would change the numbers."""
        if read_json(self.states / "state.json").get("optimiser"):
            raise FcitError(
                f"{self.path}: begun by an earlier version of fcit, whose optimizer memory this version "
                "cannot read; run it again with another --out"
            )

    def predictions(self, stage: str, dataset: str) -> Path:
        """The file of one dataset's answers after a stage ("1", "2", ... or "zero-shot")."""
        return self.path / "predictions" / stage / f"{dataset}.jsonl"

    def keep_log(self, position: Position | None) -> None:
        """Drop log lines of rounds that were never committed."""
        if not self.log.is_file():
            return
        done = (position.stage + 1, position.rounds) if position else (0, 0)
        text = self.log.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        write_text(self.log, whole)
        rows = read_lines(self.log)
        write_lines(self.log, [row for row in rows if (row["stage"], row["round"]) <= done])

    def append_log(self, row: dict[str, Any]) -> None:
        """Add one line; `keep_log` removes a line that a kill cut short."""
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def trainers(self, until: int | None = None) -> dict[str, Counter[str]]:
        """How often each task trained each adapter, by the log; `until`: up to this stage, from 1."""
        trainers: dict[str, Counter[str]] = {}
        for row in read_lines(self.log) if self.log.is_file() else []:
            if until is None or row["stage"] <= until:
                for task, names in zip(row["tasks"], row["subspaces"], strict=True):
                    for name in names.split(","):
                        trainers.setdefault(name, Counter())[task] += 1
        return trainers

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working on this folder meanwhile. The lock ends with its process."""
        try:
            import fcntl
        except ImportError:  # no such locks on Windows
            yield
            return
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FcitError(f"{self.path}: another fcit is working on this run") from None
            yield

    def require(self) -> None:
        """Raise FcitError unless this is a run folder."""
        if not self.path.is_dir():
            raise FcitError(f"{self.path}: no such run folder")
        if not self.config.is_file():
            raise FcitError(f"{self.path}: not a run folder (it has no config.toml)")
