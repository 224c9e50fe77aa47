"""A run's folder: all that a run needs to continue after kill -9, and that a report needs.

The state is committed by renaming one file, `state/state.json`. It names the safetensors files of the
adapters, extras, optimizer and client memories by their content. Files it no longer names are removed.

What is read is compared with the digest that it got when it was written: config.toml, JSON objects and
lines of the log hold theirs, tensors have it in their file's name, answers in a file beside theirs. An
earlier version's runs have it for tensors alone.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fcit.files import (
    locked,
    read_json,
    read_lines,
    read_toml,
    reading,
    write_json,
    write_text,
    written_aside,
)
from fcit.rounds.records import (
    Manifest,
    Prediction,
    RoundLog,
    Rows,
    compare,
    compare_digest,
    digest_file,
    parse,
    seal,
    tensor_file,
    trained,
    unseal,
    write_digested,
)
from fcit.rounds.server import Position
from fcit.types import FcitError, State, Weights
from fcit.weights import KINDS, from_bytes, kinds, to_bytes

ZERO_SHOT = "zero-shot"
CLIENTS = "clients"


class RunFolder:
    """Paths, and whole-file reads and writes of one run. Reading raises FcitError naming a file that is
    missing, broken or was changed."""

    def __init__(self, path: Path):
        self.path = path
        self.states = path / "state"
        self.position_file = self.states / "state.json"
        self.config, self.matrix = path / "config.toml", path / "matrix.json"
        self.log, self.partition = path / "log.jsonl", path / "partition.json"
        self._sealed = False

    def begun(self) -> bool:
        """Whether a run has begun here: there are answers or a state."""
        return self.config.is_file() and (
            self.position_file.is_file()
            or any((self.path / name).is_dir() for name in ("predictions", "scores"))
        )

    def require(self) -> None:
        """Raise FcitError unless this is a run folder."""
        if not self.path.is_dir():
            raise FcitError(f"{self.path}: no such run folder")
        if not self.config.is_file():
            raise FcitError(f"{self.path}: not a run folder (it has no config.toml)")

    @property
    def in_use(self) -> bool:
        """Whether a process works on the run (or its lock is another user's)."""
        if not (self.path / ".lock").is_file():
            return False
        with suppress(FcitError, OSError), locked(self.path, "run"):
            return False
        return True

    # -- the configuration, and JSON objects -----------------------------------------------------------

    def begin(self, table: Mapping[str, Any]) -> None:
        """Write config.toml. From now on all files get digests."""
        import tomli_w

        write_text(self.config, tomli_w.dumps(seal(table)))

    def table(self) -> dict[str, Any]:
        """The contents of config.toml; {} where there is none."""
        table = read_toml(self.config) if self.config.is_file() else None
        return {} if table is None else unseal(table, self.config, "digest" in table)

    @property
    def imported(self) -> bool:
        """Whether another implementation trained its state, so that there is no log."""
        return "imported" in self.table().get("versions", {})

    @property
    def sealed(self) -> bool:
        """Whether the run's files have digests."""
        if not self._sealed:  # a run that has digests keeps them
            self._sealed = self.config.is_file() and "digest" in read_toml(self.config)
        return self._sealed

    def write(self, path: Path, value: Mapping[str, Any]) -> None:
        """Write a JSON object."""
        write_json(path, seal(value) if self.sealed else value)

    def read(self, path: Path) -> dict[str, Any]:
        return unseal(read_json(path), path, self.sealed)

    # -- the state -------------------------------------------------------------------------------------

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
        self.write(self.position_file, manifest)
        named = {file for kind in groups for file in manifest[kind].values()}
        for file in self.states.glob("*.safetensors"):
            if file.name not in named:
                file.unlink()

    def _write(self, kind: str, name: str, weights: Mapping[str, Any]) -> str:
        """Write weights, unless they are there already; the name of their file ("" for no tensors)."""
        if not weights:
            return ""
        data = to_bytes(weights)
        file = tensor_file(kind, name, data)
        if not (self.states / file).is_file():
            with written_aside(self.states / file) as aside:
                aside.write_bytes(data)
        return file

    def manifest(self) -> Manifest | None:
        """What state.json says; None when nothing was committed."""
        path = self.position_file
        return parse(Manifest, self.read(path), str(path)) if path.is_file() else None

    def position(self) -> Position | None:
        """How far the run came, or None when nothing was committed."""
        manifest = self.manifest()
        return manifest and Position(manifest.stage, manifest.rounds, manifest.ended)

    def state(self) -> tuple[State, dict[int, Weights]]:
        """The committed state and the clients' memories."""
        manifest = self.manifest() or Manifest(0, 0)  # once: the run may commit meanwhile
        try:
            *parts, clients = (
                {name: from_bytes(data) for name, data in self.tensors(kind, of=manifest)}
                for kind in (*KINDS, CLIENTS)
            )
        except FcitError:
            if manifest == self.manifest():
                raise
            return self.state()
        return State(*parts), {int(client): weights for client, weights in clients.items()}

    def tensors(
        self, kind: str, only: str = "", of: Manifest | None = None
    ) -> Iterator[tuple[str, bytes]]:
        """Every committed adapter, extra, ... by name, as the content of its safetensors file."""
        for name, file in getattr(of or self.manifest(), kind, {}).items():
            if only not in ("", name):
                continue
            path = self.states / Path(file).name
            with reading(path):
                data = path.read_bytes()
            compare(path, file, tensor_file(kind, name, data))
            yield name, data

    def require_resumable(self) -> None:
        """Raise FcitError when an earlier version of fcit left an optimizer's memory here, which this
        one does not read: going on without it would change the numbers."""
        if (manifest := self.manifest()) and manifest.optimiser:
            raise FcitError(
                f"{self.path}: begun by an earlier version of fcit, whose optimizer memory this version "
                "cannot read; run it again with another --out"
            )

    # -- answers ---------------------------------------------------------------------------------------

    def predictions(self, stage: str, dataset: str) -> Path:
        """The file of one dataset's answers after a stage ("1", "2", ... or "zero-shot")."""
        return self.path / "predictions" / stage / f"{dataset}.jsonl"

    def keep_answers(self, stage: str, dataset: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one dataset's answers, with their digest."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write = write_digested if self.sealed else write_text
        write(self.predictions(stage, dataset), text)

    def answers(self, stage: str, dataset: str) -> list[Prediction]:
        """One dataset's answers after a stage."""
        path = self.predictions(stage, dataset)
        rows = read_lines(path)
        self._compare_answers(path)
        return [parse(Prediction, row, f"{path}, line {at}") for at, row in enumerate(rows, 1)]

    def _compare_answers(self, path: Path) -> None:
        if self.sealed or digest_file(path).is_file():
            compare_digest(path)

    # -- the log ---------------------------------------------------------------------------------------

    def rounds(self) -> list[RoundLog]:
        """The whole lines of the log: all committed rounds, and perhaps one that is not."""
        if not self.log.is_file():
            return []
        with reading(self.log):
            *lines, _ = self.log.read_bytes().split(b"\n")  # the last may be cut short
        rows, sealed = list[RoundLog](), self.sealed
        for number, line in enumerate(lines, 1):
            source = f"{self.log}, line {number}"
            with reading(self.log, place=f", line {number}"):
                rows.append(parse(RoundLog, unseal(json.loads(line), source, sealed), source))
        return rows

    def keep_log(self, rounds: int) -> None:
        """Keep the lines of the committed rounds alone."""
        if self.log.is_file():
            *whole, _ = self.log.read_bytes().split(b"\n")
            write_text(self.log, b"".join(line + b"\n" for line in whole[:rounds]).decode())

    def append_log(self, row: Mapping[str, Any]) -> None:
        """Add one line; `keep_log` removes a line that a kill cut short."""
        row = seal(row) if self.sealed else row
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the round's commit, which needs this line

    def trainers(self, until: int | None = None) -> dict[str, Counter[str]]:
        """How often each task trained each adapter, by the log; `until`: up to this stage, from 1."""
        rows = [row for row in self.rounds() if until is None or row.stage <= until]
        trainers: dict[str, Counter[str]] = {}
        for _, _, task, name in trained(rows):
            trainers.setdefault(name, Counter())[task] += 1
        return trainers

    # -- all of it -------------------------------------------------------------------------------------

    def rows(self) -> list[list[float | None]]:
        """The accuracies in matrix.json so far (percent), [stage][dataset]."""
        if not self.matrix.is_file():
            return []
        return list(map(list, parse(Rows, self.read(self.matrix), str(self.matrix)).matrix))

    def check(self, plan: Sequence[Sequence[object]], single_row: bool) -> None:
        """Raise FcitError unless matrix, position, log and plan ([stage][round]) fit each other."""
        rows, at = len(self.rows()), self.position() or Position()
        rounds = len(plan[at.stage]) if 0 <= at.stage < len(plan) else 0
        if self.manifest() and not (rounds if at.ended else 1) <= at.rounds <= rounds:
            raise FcitError(
                f"{self.position_file}: stage {at.stage + 1}, round {at.rounds} is not in the recipe"
            )
        last = at.ended and at.stage == len(plan) - 1
        least, most = (0, last) if single_row else (at.stage, at.stage + at.ended)
        if not least <= rows <= most:
            raise FcitError(
                f"{self.matrix}: has {rows} rows, but must have {least if rows < least else most:d}, as "
                f"{self.position_file} has stage {at.stage + 1}"
            )
        if self.imported:
            return
        keys = [(row.stage, row.round) for row in self.rounds()]
        done = [(stage + 1, n + 1) for stage, part in enumerate(plan) for n in range(len(part))]
        for number, key in enumerate(key for key in done if key <= (at.stage + 1, at.rounds)):
            if keys[number : number + 1] != [key]:
                raise FcitError(f"{self.log}: lacks the line of stage {key[0]}, round {key[1]}")

    def check_answers(self) -> None:
        """Raise FcitError where answers, or scores by clients, were changed."""
        for path in sorted(self.path.glob("predictions/*/*.jsonl")):
            self._compare_answers(path)
        for path in sorted(self.path.glob("scores/*/*.json")):
            self.read(path)

    def require_unmeasured(self, kind: str, key: str, answers: Path) -> None:
        """Raise FcitError where matrix.json has an accuracy whose answers are gone."""
        if self.matrix.is_file() and key in self.read(self.matrix).get(kind, {}):
            raise FcitError(f"{answers}: is missing; restore it, or choose another --out")
