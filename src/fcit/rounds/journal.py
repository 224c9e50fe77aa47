"""The journal of a run's folder: accepted replies on disk until their round is committed.

A server that is killed in mid-round takes them from here and asks only the other clients; and the round's
updates need not be in memory together. One safetensors file a client, with the rest of the reply in its
header; bad updates go to `quarantine/`, and stay there.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fcit.rounds.replies import Reply
from fcit.types import Fault, Identity, Update, Weights
from fcit.weights import KINDS, MEMORY, StoredParts, flatten, save

TOKENS = "tokens"


class RunJournal:
    """Implements `replies.Journal`. What clients are to remember is in their replies' files too, and
    theirs only when their round is over (`memories`): a reply put aside leaves them as they were.
    `check` is given those of a round that is taken up again, before anybody is asked."""

    def __init__(self, run: Path, check: Callable[[dict[int, Weights]], None] = lambda _: None):
        self.check = check
        self.folder, self.aside = run / "journal", run / "quarantine"
        self.place = (0, 0)
        self.known: tuple[list[Identity], list[Fault]] | None = None
        self.kept: dict[int, Reply] = {}

    def begin(self, stage: int, number: int) -> None:
        """Take up what is there of this round (from 0); remove what is left of others."""
        self.place, self.known, self.kept = (stage, number), None, {}
        for path in sorted(self.folder.glob("*.safetensors")):
            note, keys = _header(path)
            if note is None or tuple(note["place"]) != self.place:
                path.unlink()
            elif path.stem == TOKENS:
                self.known = _tokens(path, note)
            elif "remembers" not in note:  # of a version before this one: trained again
                path.unlink()
            else:
                reply = _reply(path, note, keys)
                self.kept[reply.update.client] = reply
        self.check(self.memories())

    def identities(self) -> tuple[list[Identity], list[Fault]] | None:
        """The round's tokens and who gave none, once they are known."""
        return self.known

    def keep_identities(self, identities: Sequence[Identity], faults: Sequence[Fault]) -> None:
        """Write them down, so that a resumed round has the same members."""
        note = {
            "place": self.place,
            "identities": [[one.client, one.task, one.samples] for one in identities],
            "faults": [asdict(fault) for fault in faults],
        }
        self._write(TOKENS, {str(one.client): one.token for one in identities}, note)

    def replies(self) -> dict[int, Reply]:
        """The round's replies so far, by client; their tensors are read when they are asked for."""
        return dict(self.kept)

    def keep(self, reply: Reply) -> Reply:
        """Write a reply down, and give it back with its tensors in the file."""
        update = reply.update
        client = update.client
        tensors = flatten(update, update.memory)
        note = {
            "place": self.place,
            "client": client,
            "samples": update.samples,
            "metrics": dict(update.metrics),
            "reply": [reply.size, reply.norm, dict(reply.spread)],
            "remembers": update.memory is not None,
        }
        path = self._write(str(client), tensors, note)
        self.kept[client] = _reply(path, note, list(tensors))
        return self.kept[client]

    def memories(self) -> dict[int, Weights]:
        """What the clients of the round's accepted replies keep from here on."""
        paths = {client: self.folder / f"{client}.safetensors" for client in sorted(self.kept)}
        found = {client: _memory(path) for client, path in paths.items()}
        return {client: memory for client, memory in found.items() if memory is not None}

    def quarantine(self, update: Update, fault: Fault) -> None:
        """Put a bad update into `quarantine/`, named by stage, round (from 1), client and fault."""
        stage, number = self.place
        who = re.sub(r"[^A-Za-z0-9-]+", "_", f"client{update.client}-{fault.kind}")
        name = f"{stage + 1}-{number + 1}-{who}.safetensors"
        save(self.aside / name, flatten(update), False, {"fault": fault.detail})
        if update.client in self.kept and fault.kind != "duplicate":
            del self.kept[update.client]
            (self.folder / f"{update.client}.safetensors").unlink()

    def clear(self) -> None:
        """The round is committed."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, tensors: Weights, note: dict[str, Any]) -> Path:
        # not synced: a file that a power cut spoils cannot be read, and its client trains again
        path = self.folder / f"{name}.safetensors"
        save(path, tensors, durable=False, note={"fcit": json.dumps(note)})
        return path


def _header(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """A file's note and tensor names; no note where the file is spoilt."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {})["fcit"]), list(file.keys())
    except (SafetensorError, OSError, KeyError, ValueError):
        return None, []


def _reply(path: Path, note: dict[str, Any], keys: Sequence[str]) -> Reply:
    own = [key for key in keys if not key.startswith(MEMORY)]
    adapters, extras, optimizer = (StoredParts(path, kind, own) for kind in KINDS)
    update = Update(note["client"], note["samples"], adapters, extras, note["metrics"], optimizer)
    return Reply(update, *note["reply"])


def _memory(path: Path) -> Weights | None:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names: list[str] = list(file.keys())
        if not json.loads((file.metadata() or {})["fcit"])["remembers"]:
            return None
        kept = sorted(name for name in names if name.startswith(MEMORY))
        return {name[len(MEMORY) :]: file.get_tensor(name) for name in kept}


def _tokens(path: Path, note: dict[str, Any]) -> tuple[list[Identity], list[Fault]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        identities = [
            Identity(client, task, file.get_tensor(str(client)), samples)
            for client, task, samples in note["identities"]
        ]
    return identities, [Fault(**fault) for fault in note["faults"]]
