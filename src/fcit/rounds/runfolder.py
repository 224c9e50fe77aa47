"""A run's folder: everything it needs to go on after kill -9, and to explain itself without rerunning.

The state is committed by one rename, of `state/state.json`, which names the safetensors files of the
adapters, extras, optimizer and client memories by their content; files it no longer names are then
removed.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fcit.files import (
    read_json,
    read_lines,
    sweep_aside,
    write_json,
    write_lines,
    written_aside,
)
from fcit.rounds.server import Position
from fcit.types import FcitError, State, Weights
from fcit.weights import load, to_bytes

ZERO_SHOT = "zero-shot"


class RunFolder:
    """Paths and whole-file reads and writes of one run."""

    def __init__(self, path: Path):
        self.path = path
        self.states = path / "state"
        self.config, self.matrix = path / "config.toml", path / "matrix.json"
        self.log, self.partition = path / "log.jsonl", path / "partition.json"

    def begun(self) -> bool:
        """Whether there is anything of a run to lose: answers or a state."""
        return self.config.is_file() and (
            self.position() is not None
            or any((self.path / name).is_dir() for name in ("predictions", "scores"))
        )

    def commit(
        self, state: State, position: Position, memory: Mapping[int, Weights] | None = None
    ) -> None:
        """Make this the state to resume from: all of it, or, if cut off, what stood before."""
        groups = {
            "adapters": state.adapters,
            "extras": state.extras,
            "optimizer": state.optimizer,
            "clients": {str(client): kept for client, kept in sorted((memory or {}).items())},
        }
        manifest: dict[str, Any] = asdict(position)
        for kind, parts in groups.items():
            names = {name: self._keep(kind, name, weights) for name, weights in parts.items()}
            manifest[kind] = {name: file for name, file in names.items() if file}
        write_json(self.states / "state.json", manifest)
        kept = {file for kind in groups for file in manifest[kind].values()}
        for file in self.states.glob("*.safetensors"):
            if file.name not in kept:
                file.unlink()

    def _keep(self, kind: str, name: str, weights: Weights) -> str:
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
        adapters, extras, optimizer, clients = (
            {name: load(self.states / file) for name, file in manifest.get(kind, {}).items()}
            for kind in ("adapters", "extras", "optimizer", "clients")
        )
        memory = {int(client): weights for client, weights in clients.items()}
        return State(adapters, extras, optimizer), memory

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
        with written_aside(self.log) as aside:
            aside.write_text(whole, encoding="utf-8")
        rows = read_lines(self.log)
        write_lines(self.log, [row for row in rows if (row["stage"], row["round"]) <= done])

    def append_log(self, row: dict[str, Any]) -> None:
        """Add one line; `keep_log` mends a line that a kill cut short."""
        import json

        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def trainers(self, until: int | None = None) -> dict[str, Counter[str]]:
        """How often each task trained each adapter, by the log of the stages up to one (from 1; none: of
        all)."""
        found: dict[str, Counter[str]] = {}
        for row in read_lines(self.log) if self.log.is_file() else []:
            if until is None or row["stage"] <= until:
                for task, names in zip(row["tasks"], row["subspaces"], strict=True):
                    for name in names.split(","):
                        found.setdefault(name, Counter())[task] += 1
        return found

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While it is open, no other process works on this folder (the system frees a dead one's)."""
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

    def tidy(self) -> None:
        """Remove what an interrupted run left half-written."""
        sweep_aside(self.path)

    def require(self) -> None:
        """Raise FcitError unless this is a run folder."""
        if not self.path.is_dir():
            raise FcitError(f"{self.path}: no such run folder")
        if not self.config.is_file():
            raise FcitError(f"{self.path}: not a run folder (it has no config.toml)")
