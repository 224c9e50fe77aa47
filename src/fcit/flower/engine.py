"""The Flower engine: turns go to clients as Flower's messages, through whatever grid Flower gives."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from fcit.engines import wire
from fcit.engines.local import LocalEngine
from fcit.engines.node import Reply
from fcit.files import write_text
from fcit.flower import parcels
from fcit.flower.answers import lost, opened, who
from fcit.recipe.config import Config, to_table
from fcit.rounds.evaluate import Answer
from fcit.types import Fault, FcitError, Identity, Job, Score, State, Turn, Update, Weights
from fcit.weights import flatten

HOUR = 3600.0
"""Seconds that a round's clients have where the recipe sets no deadline: nobody waits for ever."""

AFTER = 2.0
"""Replies are still taken up, as late ones, until so many deadlines have passed."""

PATIENCE = 0.1, 2.0
"""Seconds between looking for replies: at first, and at most."""


@dataclass
class Errand:
    """A message under way: for whom, what, to which node, and since when that node was up."""

    client: int
    reply: Reply
    type: str
    node: int = 0
    up: str = ""


class FlowerEngine:
    """Clients behind a Flower grid; `home` starts the run and answers its test sets. `check` raises
    what ended the clients' side, where that is on this machine. deadline: seconds that all of a round's
    clients have together (0: the recipe's, or an hour).

    Clients keep their memories themselves: `memory` holds, for each client, the stage and round of
    the turn whose memory it is to go on from, so that a commit fixes that too.
    """

    def __init__(
        self,
        config: Config,
        grid: Grid,
        home: LocalEngine,
        folder: Path,
        check: Callable[[], None] = lambda: None,
        deadline: float = 0.0,
    ):
        self.config, self.grid, self.check = config, grid, check
        self.memory = dict[int, Weights]()
        self.tick: Callable[[], None] = lambda: None
        self.deadline = deadline or config.federation.deadline or HOUR
        self.placed = State()
        self.recipe = to_table(config)
        self.run_name = _name(folder)
        self.nodes: dict[int, int] = {}
        self.up: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.hellos: set[str] = set()
        self.refused: dict[int, str] = {}
        self.overdue: dict[str, int] = {}
        self.stack = ExitStack()
        self.home = self.stack.enter_context(home)

    def __enter__(self) -> FlowerEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what the engine started."""
        self.stack.close()

    # -- what the server does itself ---------------------------------------------------------------

    def start(self) -> State:
        """The method's state before the first round."""
        return self.home.start()

    def place(self, state: State) -> None:
        """Put a state in place, to answer with, here and for what clients score."""
        self.home.place(state)
        self.placed = state

    def answer(self, dataset: str, chunks: Sequence[Sequence[int]]) -> Iterator[list[Answer]]:
        """Answers to chunks of a dataset's test samples (indices), in the order given."""
        return self.home.answer(dataset, chunks)

    # -- what clients do ---------------------------------------------------------------------------

    def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
        """Clients' identity tokens, or what they did instead, as they come."""
        asks = {
            turn.client: Errand(turn.client, ({"do": "identify"} | self._about(turn), {}), "query")
            for turn in turns
        }
        for client, reply in self._send(asks):
            yield wire.understood(client, reply, wire.unpack_identity)

    def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
        """Clients' updates, or what they did instead, as they come."""
        asks, versions = {}, {}
        for job in jobs:
            client = job.turn.client
            header, weights = wire.pack_job(job, {})
            header |= {"do": "train", "since": self._since(client)} | self._about(job.turn)
            asks[client] = Errand(client, (header, weights), MessageType.TRAIN)
            versions[client] = torch.tensor([job.turn.stage, job.turn.round])
        for client, reply in self._send(asks):
            found = wire.understood(
                client, reply, lambda header, body: wire.unpack_update(header, body)[0]
            )
            if isinstance(found, Update) and isinstance(reply, tuple):
                kept = reply[0].get("kept")
                found = replace(found, memory={"turn": versions[client]} if kept else {})
            self.tick()
            yield found
        for client in self._late():
            yield Fault(client, "late", "an answer to an earlier turn came after its deadline")

    def score(self, dataset: str, clients: Sequence[int]) -> Iterator[Score | Fault]:
        """Clients' scores of the state in place on their own test samples, as they come."""
        header = {"do": "score", "dataset": dataset, "config": self.recipe, "run": self.run_name}
        body = flatten(replace(self.placed, optimizer={}))
        asks = {client: Errand(client, (header, body), MessageType.EVALUATE) for client in clients}
        for client, reply in self._send(asks):
            yield wire.understood(client, reply, wire.unpack_score)

    def _about(self, turn: Turn) -> wire.Header:
        return {"turn": wire.pack_turn(turn), "config": self.recipe, "run": self.run_name}

    def _since(self, client: int) -> list[int] | None:
        kept = self.memory.get(client)
        if not kept:
            return None
        return [int(value) for value in kept["turn"]]

    # -- messages ----------------------------------------------------------------------------------

    def _send(self, asks: Mapping[int, Errand]) -> Iterator[tuple[int, Reply | Fault]]:
        """Send every client its errand; yield replies and faults as they come.

        A client that is away has until the deadline to come back; one whose node was restarted since
        it got its errand gets it again.
        """
        end = time.monotonic() + self.deadline
        waiting, underway = dict(asks), dict[str, Errand]()
        pause = PATIENCE[0]
        while waiting or underway:
            self.check()
            self._look()
            for client in [one for one in waiting if self.nodes.get(one) in self.up]:
                errand = waiting.pop(client)
                errand.node = self.nodes[client]
                errand.up = self.up[errand.node]
                underway[self._push(errand)] = errand
            came = list(self.grid.pull_messages(list(underway))) if underway else []
            for message in came:
                errand = underway.pop(message.metadata.reply_to_message_id, None)
                if errand is None:
                    continue
                if lost(message):
                    waiting[errand.client] = errand
                    continue
                yield errand.client, opened(errand.client, message)
            for key, errand in list(underway.items()):
                if self.up.get(errand.node, errand.up) != errand.up:
                    waiting[errand.client] = underway.pop(key)
            if time.monotonic() > end:
                break
            pause = PATIENCE[0] if came else min(2 * pause, PATIENCE[1])
            if waiting or underway:
                time.sleep(pause)
        for errand in waiting.values():
            why = "; ".join(["the client is not connected", *self.refused.values()])
            yield errand.client, Fault(errand.client, "timeout", why)
        for key, errand in underway.items():
            self.overdue[key] = errand.client
            yield (
                errand.client,
                Fault(errand.client, "timeout", f"no answer in {self.deadline:g} s"),
            )

    def _push(self, errand: Errand) -> str:
        content = parcels.pack(*errand.reply)
        life = AFTER * self.deadline
        (key,) = self.grid.push_messages([Message(content, errand.node, errand.type, ttl=life)])
        if not key:
            raise FcitError(f"client {errand.client}: Flower's SuperLink did not take its message")
        return key

    def _late(self) -> list[int]:
        """The clients of overdue messages that were answered after all."""
        if not self.overdue:
            return []
        found: list[int] = []
        for message in self.grid.pull_messages(list(self.overdue)):
            client = self.overdue.pop(message.metadata.reply_to_message_id, None)
            gone = message.has_error()  # nothing will come of it any more
            if client is not None and not gone:
                found.append(client)
        return found

    def _look(self) -> None:
        """See which nodes are up, and ask those not met since they came up which client they are.

        A node that comes up under a known client's number takes its place once the old one is gone.
        """
        before, nodes = self.up, list(self.grid.get_nodes())
        self.up = {node.node_id: node.last_activated_at for node in nodes}
        self.names |= {node.node_id: node.name for node in nodes}  # of those that went away, too
        again = self.refused if before != self.up else ()
        fresh = [
            node for node, since in self.up.items() if before.get(node) != since or node in again
        ]
        # Who came up may be another program by now: no errands until it has said who it is.
        self.nodes = {one: node for one, node in self.nodes.items() if node not in fresh}
        content = parcels.pack({"do": "hello"}, {})
        life = AFTER * self.deadline
        messages = [Message(content, node, MessageType.QUERY, ttl=life) for node in fresh]
        if messages:
            self.hellos |= set(self.grid.push_messages(messages))
        if self.hellos:
            for message in self.grid.pull_messages(list(self.hellos)):
                self.hellos.discard(message.metadata.reply_to_message_id)
                if wrong := self._meet(message):
                    if not self.config.federation.min_clients:
                        raise FcitError(wrong)
                    self.refused[message.metadata.src_node_id] = wrong

    def _meet(self, message: Message) -> str:
        """Take a node for the client that it says it is; say why, where it cannot be.

        The name is that under which the operator registered the node's key, so no node can change its
        own; a simulation's nodes have none.
        """
        if lost(message):
            return ""  # the node went away again; it is asked anew once it is back
        node, client = message.metadata.src_node_id, who(message)
        self.refused.pop(node, None)
        self.nodes = {one: where for one, where in self.nodes.items() if where != node}
        if isinstance(client, str):
            return client
        name = self.names.get(node)
        if name and name != f"client-{client}":
            return (
                f"a node says it is client {client}, and its key is registered as {name}; start it with "
                f"its own number, or register its key with --name client-{client}"
            )
        if self.nodes.get(client) in self.up:
            return f"two nodes say they are client {client}; stop one of them"
        self.nodes[client] = node
        return ""


def _name(folder: Path) -> str:
    """The name by which clients know a run, made once and kept in its folder."""
    file = folder / "flower.txt"
    if not file.is_file():
        write_text(file, uuid.uuid4().hex + "\n")
    return file.read_text(encoding="utf-8").strip()
