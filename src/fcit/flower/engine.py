"""The Flower engine: turns go to clients as Flower's messages, through the grid that Flower provides."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from fcit.engines import wire
from fcit.engines.local import LocalEngine
from fcit.files import write_text
from fcit.flower.messages import is_lost, pack, read_hello, read_reply
from fcit.recipe.config import Config, to_table
from fcit.rounds.evaluate import Answer
from fcit.types import Fault, FcitError, Identity, Job, Score, State, Turn, Update, Weights
from fcit.weights import flatten

DEFAULT_DEADLINE = 3600.0
"""Seconds that a round's clients have where the recipe sets no deadline."""

LIFETIME = 2.0
"""How many deadlines a message lives: replies that come within this time are still seen, as late."""

PAUSE = 0.1, 2.0
"""Seconds between two looks for replies: at first, and at most."""


@dataclass
class Request:
    """A message to a client."""

    client: int
    frame: wire.Frame
    type: str
    node: int = 0
    """The node that it was sent to."""
    active_since: str = ""
    """When that node had connected."""


class FlowerEngine:
    """Trains clients behind a Flower grid.

    `home` starts the run and answers its test sets on the server. `check` raises what ended the clients'
    side, where that is on this machine. deadline: seconds that all clients of a round have together (0:
    the recipe's, or an hour).

    Clients keep their memories themselves. `memory` holds the stage and round of the turn that left each
    client's memory, so that a commit fixes that too.
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
        self.deadline = deadline or config.federation.deadline or DEFAULT_DEADLINE
        self.placed = State()
        self.about_run = {"config": to_table(config), "run": _run_name(folder)}
        self.nodes: dict[int, int] = {}
        """The node of every client."""
        self.active_since: dict[int, str] = {}
        """When every connected node had connected."""
        self.names: dict[int, str] = {}
        """The names under which nodes' keys are registered, also of nodes that went away."""
        self.hellos: set[str] = set()
        """Messages that ask a node which client it is."""
        self.refused: dict[int, str] = {}
        """Nodes that are no client of the run, and why."""
        self.overdue: dict[str, int] = {}
        """Messages whose deadline has passed, and their clients."""
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
        """Set the state to answer with, here and for what clients score."""
        self.home.place(state)
        self.placed = state

    def answer(self, dataset: str, chunks: Sequence[Sequence[int]]) -> Iterator[list[Answer]]:
        """Answers to chunks of a dataset's test samples (indices), in the order given."""
        return self.home.answer(dataset, chunks)

    # -- what clients do ---------------------------------------------------------------------------

    def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
        """Clients' identity tokens, or their faults, as they come."""
        requests: list[Request] = []
        for turn in turns:
            header = {"do": "identify", "turn": wire.pack_turn(turn)} | self.about_run
            requests.append(Request(turn.client, (header, {}), MessageType.QUERY))
        for client, reply in self._send(requests):
            yield wire.unpack_reply(client, reply, wire.unpack_identity)

    def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
        """Clients' updates, or their faults, as they come."""
        requests: list[Request] = []
        turns = {job.turn.client: job.turn for job in jobs}
        for job in jobs:
            memory = self.memory.get(job.turn.client)
            since = [int(value) for value in memory["turn"]] if memory else None
            header, weights = wire.pack_job(job, {})
            header |= {"do": "train", "since": since} | self.about_run
            requests.append(Request(job.turn.client, (header, weights), MessageType.TRAIN))
        for client, reply in self._send(requests):
            update = wire.unpack_reply(client, reply, wire.unpack_update)
            if isinstance(update, Update) and isinstance(reply, tuple):
                version = torch.tensor([turns[client].stage, turns[client].round])
                memory = {"turn": version} if reply[0].get("kept") else {}
                update = replace(update, memory=memory)
            self.tick()
            yield update
        for client in self._late():
            yield Fault(client, "late", "an answer to an earlier turn came after its deadline")

    def score(self, dataset: str, clients: Sequence[int]) -> Iterator[Score | Fault]:
        """Clients' scores of the placed state on their own test samples, as they come."""
        header = {"do": "score", "dataset": dataset} | self.about_run
        frame = header, flatten(replace(self.placed, optimizer={}))
        requests = [Request(client, frame, MessageType.EVALUATE) for client in clients]
        for client, reply in self._send(requests):
            yield wire.unpack_reply(client, reply, wire.unpack_score)

    # -- messages ----------------------------------------------------------------------------------

    def _send(self, requests: Sequence[Request]) -> Iterator[tuple[int, wire.Frame | Fault]]:
        """Send every client its request; yield replies and faults as they come.

        A client that is not connected has until the deadline to connect. A client whose node restarted
        after it got its request gets it again.
        """
        end = time.monotonic() + self.deadline
        waiting = {request.client: request for request in requests}
        sent = dict[str, Request]()
        pause, longest = PAUSE
        while waiting or sent:
            self.check()
            self._update_nodes()
            for client in [one for one in waiting if self.nodes.get(one) in self.active_since]:
                request = waiting.pop(client)
                request.node = self.nodes[client]
                request.active_since = self.active_since[request.node]
                sent[self._push(request)] = request
            replies = list(self.grid.pull_messages(list(sent))) if sent else []
            for message in replies:
                request = sent.pop(message.metadata.reply_to_message_id, None)
                if request and is_lost(message):
                    waiting[request.client] = request
                elif request:
                    yield request.client, read_reply(request.client, message)
            for key, request in list(sent.items()):
                since = self.active_since.get(request.node, request.active_since)
                if since != request.active_since:
                    waiting[request.client] = sent.pop(key)
            if time.monotonic() > end:
                break
            pause = PAUSE[0] if replies else min(2 * pause, longest)
            if waiting or sent:
                time.sleep(pause)
        for client in waiting:
            reasons = "; ".join(["the client is not connected", *self.refused.values()])
            yield client, Fault(client, "timeout", reasons)
        for key, request in sent.items():
            client = self.overdue[key] = request.client
            yield client, Fault(client, "timeout", f"no answer in {self.deadline:g} s")

    def _push(self, request: Request) -> str:
        (key,) = self.grid.push_messages([self._message(request.frame, request.node, request.type)])
        if not key:
            raise FcitError(f"client {request.client}: Flower's SuperLink did not take its message")
        return key

    def _message(self, frame: wire.Frame, node: int, kind: str) -> Message:
        return Message(pack(*frame), node, kind, ttl=LIFETIME * self.deadline)

    def _late(self) -> list[int]:
        """The clients whose overdue messages were answered after all."""
        late: list[int] = []
        for message in self.grid.pull_messages(list(self.overdue)) if self.overdue else ():
            client = self.overdue.pop(message.metadata.reply_to_message_id, None)
            if (
                client is not None and not message.has_error()
            ):  # an error: it will never be answered
                late.append(client)
        return late

    def _update_nodes(self) -> None:
        """See which nodes are connected, and ask the new ones which client they are.

        A node that connects under a known client's number takes its place once the old one is gone.
        """
        before, nodes = self.active_since, list(self.grid.get_nodes())
        self.active_since = {node.node_id: node.last_activated_at for node in nodes}
        self.names |= {node.node_id: node.name for node in nodes}
        again = self.refused if before != self.active_since else ()
        new = [
            node
            for node, since in self.active_since.items()
            if before.get(node) != since or node in again
        ]
        # A node that restarted may be another program now: it gets no request until it has said hello.
        self.nodes = {client: node for client, node in self.nodes.items() if node not in new}
        if new:
            hello = {"do": "hello"}, Weights()
            messages = [self._message(hello, node, MessageType.QUERY) for node in new]
            self.hellos |= set(self.grid.push_messages(messages))
        for message in self.grid.pull_messages(list(self.hellos)) if self.hellos else ():
            self.hellos.discard(message.metadata.reply_to_message_id)
            try:
                self._meet(message)
            except FcitError as error:
                if not self.config.federation.min_clients:
                    raise
                self.refused[message.metadata.src_node_id] = str(error)

    def _meet(self, message: Message) -> None:
        """Take a node for the client that it says it is. Raises FcitError where it cannot be.

        A node cannot change the name under which the operator registered its key. Nodes of a simulation
        have no names.
        """
        if is_lost(message):
            return  # the node went away again; it is asked once it is back
        node = message.metadata.src_node_id
        self.refused.pop(node, None)
        self.nodes = {client: other for client, other in self.nodes.items() if other != node}
        client = read_hello(message)
        name = self.names.get(node)
        if name and name != f"client-{client}":
            raise FcitError(
                f"a node says it is client {client}, and its key is registered as {name}; start it with "
                f"its own number, or register its key with --name client-{client}"
            )
        if self.nodes.get(client) in self.active_since:
            raise FcitError(f"two nodes say they are client {client}; stop one of them")
        self.nodes[client] = node


def _run_name(folder: Path) -> str:
    """The name by which clients know a run, made once and kept in its folder."""
    file = folder / "flower.txt"
    if not file.is_file():
        write_text(file, uuid.uuid4().hex + "\n")
    return file.read_text(encoding="utf-8").strip()
