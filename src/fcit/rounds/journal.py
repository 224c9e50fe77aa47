"""The journal in a run's folder: accepted replies on disk until their round is committed.

A server that was killed in the middle of a round continues with these replies and asks only the other
clients, and a round's updates need not fit in memory together. Each client's reply is one safetensors
file with the rest of the reply in its header. Rejected updates go to `quarantine/` and stay there.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fcit.rounds.acceptance import Reply
from fcit.types import Fault, Identity, Tensor, Update, Weights
from fcit.weights import KINDS, MEMORY, Stored, StoredParts, flatten, save

TOKENS = "tokens"


class InMemory:
    """The journal of a run without a folder. It keeps nothing: a round that is cut off starts again."""

    def __init__(self) -> None:
        self.known: tuple[list[Identity], list[Fault]] = [], []
        self.kept: dict[int, Reply] = {}

    def begin(self, stage: int, number: int) -> None: ...

    def keep_identities(self, identities: Sequence[Identity], faults: Sequence[Fault]) -> None: ...

    def keep(self, reply: Reply) -> Reply:
        return reply

    def forget(self, client: int) -> None: ...

    def quarantine(self, update: Update, fault: Fault) -> None: ...


class RunJournal:
    """The journal of a run in a folder.

    Clients' new memories are in the same files. They take effect when the round is over (`memories`), so
    a rejected reply does not change a memory. `check` is called with the memories of a round that is
    continued, before any client is asked.
    """

    def __init__(self, run: Path, check: Callable[[dict[int, Weights]], None] = lambda _: None):
        self.check = check
        self.folder, self.aside = run / "journal", run / "quarantine"
        self.round = (0, 0)
        self.known: tuple[list[Identity], list[Fault]] = [], []
        """The round's tokens so far, and the faults of clients that the round goes on without."""
        self.kept: dict[int, Reply] = {}
        """The round's replies so far, by client; their tensors are read on use."""
        self.remembered: dict[int, Stored] = {}

    def begin(self, stage: int, number: int) -> None:
        """Load what the journal has of this round (from 0); remove what is left of others."""
        self.round, self.known = (stage, number), ([], [])
        self.kept, self.remembered = {}, {}
        for path in sorted(self.folder.glob("*.safetensors")):
            note, keys = _header(path)
            if note is None or note["round"] != list(self.round):
                path.unlink()
            elif path.stem == TOKENS:
                tensors = Stored(path, "", keys)
                identities = [
                    Identity(client, task, tensors[str(client)], samples)
                    for client, task, samples in note["identities"]
                ]
                self.known = identities, [Fault(**fault) for fault in note["faults"]]
            else:
                self._take(path, note, keys)
        self.check(self.memories())

    def keep_identities(self, identities: Sequence[Identity], faults: Sequence[Fault]) -> None:
        """Write them: a resumed round asks only clients that are in neither of the two."""
        note = {
            "identities": [[each.client, each.task, each.samples] for each in identities],
            "faults": [asdict(fault) for fault in faults],
        }
        self._write(TOKENS, {str(each.client): each.token for each in identities}, note)

    def keep(self, reply: Reply) -> Reply:
        """Write a reply; return it with its tensors in the file."""
        update = reply.update
        tensors = flatten(update, update.memory)
        note = {
            "client": update.client,
            "samples": update.samples,
            "metrics": dict(update.metrics),
            "reply": [reply.size, reply.norm, dict(reply.spread)],
            "remembers": update.memory is not None,
        }
        return self._take(self._write(str(update.client), tensors, note), note, list(tensors))

    def memories(self) -> dict[int, Weights]:
        """The new memories of the clients whose replies were accepted."""
        return {client: dict(stored) for client, stored in sorted(self.remembered.items())}

    def quarantine(self, update: Update, fault: Fault) -> None:
        """Move an update to `quarantine/`, named by stage, round (from 1), client and fault."""
        stage, number = self.round
        who = re.sub(r"[^A-Za-z0-9-]+", "_", f"client{update.client}-{fault.kind}")
        name = f"{stage + 1}-{number + 1}-{who}.safetensors"
        save(self.aside / name, flatten(update), False, {"fault": fault.detail})
        if update.client in self.kept and fault.kind != "duplicate":
            self.forget(update.client)

    def forget(self, client: int) -> None:
        """Remove a client's reply: it is asked again."""
        del self.kept[client]
        self.remembered.pop(client, None)
        self._path(str(client)).unlink()

    def clear(self) -> None:
        """Remove all replies: their round is committed."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _take(self, path: Path, note: dict[str, Any], keys: Sequence[str]) -> Reply:
        """The reply in a file, whose tensors are read on use."""
        client, own = note["client"], [key for key in keys if not key.startswith(MEMORY)]
        adapters, extras, optimizer = (StoredParts(path, kind, own) for kind in KINDS)
        update = Update(client, note["samples"], adapters, extras, note["metrics"], optimizer)
        self.kept[client] = Reply(update, *note["reply"])
        if note["remembers"]:
            names = sorted(key.removeprefix(MEMORY) for key in keys if key.startswith(MEMORY))
            self.remembered[client] = Stored(path, MEMORY, names)
        return self.kept[client]

    def _write(self, name: str, tensors: Weights, note: dict[str, Any]) -> Path:
        # Not synced: a file that a power cut damages is removed, and its client trains again.
        text = json.dumps({"round": self.round} | note)
        header = {"fcit": text, "digest": _digest(text, tensors)}
        save(self._path(name), tensors, durable=False, note=header)
        return self._path(name)


Journal = RunJournal | InMemory
"""Where accepted replies wait for the end of their round."""


def _header(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """A file's note and tensor names; no note where it is not as it was written."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header, keys = file.metadata() or {}, list(file.keys())
        if header["digest"] != _digest(header["fcit"], Stored(path, "", keys)):
            return None, []
        return json.loads(header["fcit"]), keys
    except (SafetensorError, OSError, KeyError, ValueError):
        return None, []


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """A hash of a file's note and tensors."""
    from torch import uint8

    total = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].contiguous().view(-1).view(uint8).numpy().tobytes())
    return total.hexdigest()
