"""The journal in a run's folder: accepted replies on disk until their round is committed.

A server that was killed in the middle of a round continues with these replies and asks only the other
clients, and a round's updates need not fit in memory together. Each client's reply is one safetensors
file with the rest of the reply in its header. Rejected updates go to `quarantine/` and stay there.
"""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fcit.rounds.replies import Reply
from fcit.types import Fault, Identity, Update, Weights
from fcit.weights import KINDS, MEMORY, Stored, StoredParts, flatten, save

TOKENS = "tokens"


class RunJournal:
    """Implements `replies.Journal`.

    Clients' new memories are in the same files. They take effect when the round is over (`memories`), so
    a rejected reply does not change a memory. `check` is called with the memories of a round that is
    continued, before any client is asked.
    """

    def __init__(self, run: Path, check: Callable[[dict[int, Weights]], None] = lambda _: None):
        self.check = check
        self.folder, self.aside = run / "journal", run / "quarantine"
        self.round = (0, 0)
        self.known: tuple[list[Identity], list[Fault]] | None = None
        self.kept: dict[int, Reply] = {}

    def begin(self, stage: int, number: int) -> None:
        """Load what the journal has of this round (from 0); remove what is left of others."""
        self.round, self.known, self.kept = (stage, number), None, {}
        for path in sorted(self.folder.glob("*.safetensors")):
            note, keys = _header(path)
            if note is None or tuple(note["place"]) != self.round:
                path.unlink()
            elif path.stem == TOKENS:
                self.known = _tokens(path, note, keys)
            elif "remembers" not in note:  # written by an earlier version: the client trains again
                path.unlink()
            else:
                reply = _reply(path, note, keys)
                self.kept[reply.update.client] = reply
        self.check(self.memories())

    def identities(self) -> tuple[list[Identity], list[Fault]] | None:
        """The round's tokens, and the faults of clients that sent none; None before they are known."""
        return self.known

    def keep_identities(self, identities: Sequence[Identity], faults: Sequence[Fault]) -> None:
        """Write them, so that a resumed round has the same members."""
        note = {
            "place": self.round,
            "identities": [[each.client, each.task, each.samples] for each in identities],
            "faults": [asdict(fault) for fault in faults],
        }
        self._write(TOKENS, {str(each.client): each.token for each in identities}, note)

    def replies(self) -> dict[int, Reply]:
        """The round's replies so far, by client; their tensors are read on use."""
        return dict(self.kept)

    def keep(self, reply: Reply) -> Reply:
        """Write a reply; return it with its tensors in the file."""
        update = reply.update
        tensors = flatten(update, update.memory)
        note = {
            "place": self.round,
            "client": update.client,
            "samples": update.samples,
            "metrics": dict(update.metrics),
            "reply": [reply.size, reply.norm, dict(reply.spread)],
            "remembers": update.memory is not None,
        }
        path = self._write(str(update.client), tensors, note)
        self.kept[update.client] = _reply(path, note, list(tensors))
        return self.kept[update.client]

    def memories(self) -> dict[int, Weights]:
        """The new memories of the clients whose replies were accepted."""
        paths = {client: self.folder / f"{client}.safetensors" for client in sorted(self.kept)}
        memories = {client: _memory(path) for client, path in paths.items()}
        return {client: memory for client, memory in memories.items() if memory is not None}

    def quarantine(self, update: Update, fault: Fault) -> None:
        """Move an update to `quarantine/`, named by stage, round (from 1), client and fault."""
        stage, number = self.round
        who = re.sub(r"[^A-Za-z0-9-]+", "_", f"client{update.client}-{fault.kind}")
        name = f"{stage + 1}-{number + 1}-{who}.safetensors"
        save(self.aside / name, flatten(update), False, {"fault": fault.detail})
        if update.client in self.kept and fault.kind != "duplicate":
            del self.kept[update.client]
            (self.folder / f"{update.client}.safetensors").unlink()

    def clear(self) -> None:
        """Remove all replies: their round is committed."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, tensors: Weights, note: dict[str, Any]) -> Path:
        # Not synced: a file that a power cut damages is unreadable, and its client trains again.
        path = self.folder / f"{name}.safetensors"
        save(path, tensors, durable=False, note={"fcit": json.dumps(note)})
        return path


def _header(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """A file's note and tensor names; no note where the file is damaged."""
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
    note, keys = _header(path)
    if note is None or not note["remembers"]:
        return None
    names = sorted(key.removeprefix(MEMORY) for key in keys if key.startswith(MEMORY))
    return dict(Stored(path, MEMORY, names))


def _tokens(
    path: Path, note: dict[str, Any], keys: Sequence[str]
) -> tuple[list[Identity], list[Fault]]:
    tensors = Stored(path, "", keys)
    identities = [
        Identity(client, task, tensors[str(client)], samples)
        for client, task, samples in note["identities"]
    ]
    return identities, [Fault(**fault) for fault in note["faults"]]
