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
from fcit.flower import NAME_FILE
from fcit.flower.messages import is_lost, pack, read_reply
from fcit.flower.nodes import Nodes
from fcit.flower.status import Status
from fcit.recipe.config import Config, to_table
from fcit.types import Fault, FcitError, Identity, Job, Score, State, Turn, Update, Weights
from fcit.weights import flatten

DEFAULT_DEADLINE = 3600.0
"""Seconds that a round's clients have where the recipe sets no deadline."""

REST = 10.0, 5.0
"""The next look for connected nodes starts this many times as long after the last as that took, since it
takes long with many nodes; and at most so many seconds after it."""

LIFETIME = 2.0
"""How many deadlines a message lives: replies that come within this time are still seen, as late."""

PAUSE = 0.1, 2.0
"""Seconds between two looks for replies: at first, and at most."""

TYPES = {
    "identify": MessageType.QUERY,
    "train": MessageType.TRAIN,
    "score": MessageType.EVALUATE,
}
"""Flower's types of messages by what a request asks for."""


@dataclass
class Sent:
    """A request on its way."""

    request: wire.Request
    node: int
    """The node that it was sent to."""
    active_since: str
    """When that node had connected."""


class FlowerEngine:
    """Trains clients behind a Flower grid.

    `home` starts the run and answers its test sets on the server. `check` raises what ended the clients'
    side, where that is on this machine. deadline: seconds that all clients of a round have together (0:
    the recipe's, or an hour). `status` tells the operator who is awaited. at_once: requests that are on
    their way at a time (0: all of a round), which bounds the memory that their messages take.

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
        status: Status | None = None,
        at_once: int = 0,
    ):
        self.grid, self.check, self.status, self.at_once = grid, check, status, at_once
        self.memory = dict[int, Weights]()
        self.tick: Callable[[], None] = lambda: None
        self.deadline = deadline or config.federation.deadline or DEFAULT_DEADLINE
        self.placed = State()
        self.about_run = {"config": to_table(config), "run": _run_name(folder)}
        hello = {"do": "hello"} | self.about_run
        needs_all = not config.federation.min_clients
        self.nodes = Nodes(grid, hello, LIFETIME * self.deadline, needs_all)
        self.overdue: dict[str, int] = {}
        """Messages whose deadline has passed, and their clients."""
        self.stack = ExitStack()
        self.home = self.stack.enter_context(home)
        self.start, self.token_width, self.answer = home.start, home.token_width, home.answer
        self.check_lengths = home.check_lengths

    def __enter__(self) -> FlowerEngine:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.stack.close()
        if self.status:
            self.status.end(error)

    def place(self, state: State) -> None:
        """Set the state to answer with, here and for what clients score."""
        if self.status:
            self.status.begin("answering the test sets", (), 0.0, "")
        self.home.place(state)
        self.placed = state

    # -- what clients do ---------------------------------------------------------------------------

    def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
        """Clients' identity tokens, or their faults, as they come."""
        self._tell("identity tokens", turns)
        for client, reply in self._send(list(map(wire.ask_identity, turns))):
            yield wire.unpack_reply(client, reply, wire.unpack_identity)

    def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
        """Clients' updates, or their faults, as they come."""
        requests: list[wire.Request] = []
        turns = {job.turn.client: job.turn for job in jobs}
        self._tell("training", list(turns.values()))
        for job in jobs:
            memory = self.memory.get(job.turn.client)
            since = [int(value) for value in memory["turn"]] if memory else None
            header, weights = wire.pack_job(job, {})
            requests.append((job.turn.client, header | {"since": since}, weights))
        losses: list[float] = []
        for client, reply in self._send(requests):
            update = wire.unpack_reply(client, reply, wire.unpack_update)
            if isinstance(update, Update) and isinstance(reply, tuple):
                version = torch.tensor([turns[client].stage, turns[client].round])
                memory = {"turn": version} if reply[0].get("kept") else {}
                update = replace(update, memory=memory)
                losses.append(update.metrics.get("loss", 0.0))
            self.tick()
            yield update
        if self.status and turns:
            self.status.end_round(losses)
        for client in self._late():
            yield Fault(client, "late", "an answer to an earlier turn came after its deadline")

    def score(self, dataset: str, clients: Sequence[int]) -> Iterator[Score | Fault]:
        """Clients' scores of the placed state on their own test samples, as they come."""
        if self.status:
            self.status.begin(f"scores of {dataset}", clients, self.deadline, "the other datasets")
        weights = flatten(replace(self.placed, optimizer={}))
        requests = [(*wire.ask_score(client, dataset)[:2], weights) for client in clients]
        for client, reply in self._send(requests):
            yield wire.unpack_reply(client, reply, wire.unpack_score)

    def _tell(self, what: str, turns: Sequence[Turn]) -> None:
        if self.status and turns:
            self.status.begin_round(what, turns, self.deadline)

    # -- messages ----------------------------------------------------------------------------------

    def _send(self, requests: Sequence[wire.Request]) -> Iterator[tuple[int, wire.Frame | Fault]]:
        """Send every client its request; yield replies and faults as they come.

        A client that is not connected has until the deadline to connect. A client whose node restarted
        after it got its request gets it again.
        """
        end = time.monotonic() + self.deadline
        waiting = {request[0]: request for request in requests}
        sent = dict[str, Sent]()
        pause, longest = PAUSE
        next_look = 0.0
        while waiting or sent:
            self.check()
            if (begun := time.monotonic()) >= next_look:
                self.nodes.update()
                ended, (times, most) = time.monotonic(), REST
                next_look = ended + min(times * (ended - begun), most)
            for client in list(waiting):
                if self.at_once and len(sent) >= self.at_once:
                    break
                if (node := self.nodes.of(client)) is not None:
                    key = self._push(waiting[client], node)
                    sent[key] = Sent(waiting.pop(client), node, self.nodes.active_since[node])
            replies = list(self.grid.pull_messages(list(sent))) if sent else []
            for message in replies:
                answered = sent.pop(message.metadata.reply_to_message_id, None)
                if answered and is_lost(message):
                    waiting[answered.request[0]] = answered.request
                elif answered:
                    client = answered.request[0]
                    yield client, read_reply(client, message)
            for key, on_way in list(sent.items()):
                since = self.nodes.active_since.get(on_way.node, on_way.active_since)
                if since != on_way.active_since:
                    waiting[on_way.request[0]] = sent.pop(key).request
            if self.status:
                at_work = [on_way.request[0] for on_way in sent.values()]
                self.status.awaits(at_work, list(waiting), list(self.nodes.refused.values()))
            if time.monotonic() > end:
                break
            pause = PAUSE[0] if replies else min(2 * pause, longest)
            if waiting or sent:
                time.sleep(pause)
        for client in waiting:
            reasons = "; ".join(["the client is not connected", *self.nodes.refused.values()])
            if self.nodes.of(client) is not None:
                reasons = (
                    f"its request was not sent in {self.deadline:g} s: too many are on their way"
                )
            yield client, Fault(client, "timeout", reasons)
        for key, on_way in sent.items():
            client = self.overdue[key] = on_way.request[0]
            yield client, Fault(client, "timeout", f"no answer in {self.deadline:g} s")

    def _push(self, request: wire.Request, node: int) -> str:
        client, header, weights = request
        wire.check_names(header, "recipe")
        content, lives = pack(header | self.about_run, weights), LIFETIME * self.deadline
        message = Message(content, node, TYPES[header["do"]], ttl=lives)
        (key,) = self.grid.push_messages([message])
        if not key:
            raise FcitError(f"client {client}: Flower's SuperLink did not take its message")
        return key

    def _late(self) -> list[int]:
        """The clients whose overdue messages were answered after all."""
        late: list[int] = []
        for message in self.grid.pull_messages(list(self.overdue)) if self.overdue else ():
            client = self.overdue.pop(message.metadata.reply_to_message_id, None)
            if client is not None and not message.has_error():  # else it will never be answered
                late.append(client)
        return late


def _run_name(folder: Path) -> str:
    """The name by which clients know a run, made once and kept in its folder."""
    file = folder / NAME_FILE
    if not file.is_file():
        write_text(file, uuid.uuid4().hex + "\n")
    return file.read_text(encoding="utf-8").strip()
