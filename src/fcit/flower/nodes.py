"""Who is connected: the grid's nodes, and which client of the run each says it is."""

import time
from collections.abc import Mapping

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from fcit.engines import wire
from fcit.flower.messages import is_lost, pack, read_hello
from fcit.types import FcitError

AGAIN = 60.0
"""Seconds after which a node that is no client of the run is asked again: it may have been mended."""


class Nodes:
    """The nodes of a grid. `hello` is the header that asks a node which client it is, and whether it has
    what the run's stages need; `patience`: seconds that an answer may take. In a run that `needs_all` a
    node that cannot be a client ends it."""

    def __init__(self, grid: Grid, hello: wire.Header, patience: float, needs_all: bool):
        self.grid, self.hello, self.patience, self.needs_all = grid, hello, patience, needs_all
        self.clients: dict[int, int] = {}
        """The node of every client, also of clients that went away."""
        self.active_since: dict[int, str] = {}
        """When every connected node had connected."""
        self.names: dict[int, str] = {}
        """The names under which nodes' keys are registered, also of nodes that went away."""
        self.asked: dict[str, int] = {}
        """Messages that ask a node which client it is, and the node."""
        self.refused: dict[int, str] = {}
        """Nodes that are no client of the run, and why."""
        self.asked_again = time.monotonic()

    def of(self, client: int) -> int | None:
        """The connected node of a client; None: there is none."""
        node = self.clients.get(client)
        return node if node in self.active_since else None

    def update(self) -> None:
        """See which nodes are connected, and ask the new ones which client they are.

        A node that connects under a known client's number takes its place once the old one is gone.
        Raises FcitError for a node that cannot be a client, in a run that needs all of them.
        """
        before, nodes = self.active_since, list(self.grid.get_nodes())
        self.active_since = {node.node_id: node.last_activated_at for node in nodes}
        self.names |= {node.node_id: node.name for node in nodes}
        again: Mapping[int, str] = {}
        if before != self.active_since or time.monotonic() > self.asked_again + AGAIN:
            again, self.asked_again = self.refused, time.monotonic()
        new = [
            node
            for node, since in self.active_since.items()
            if before.get(node) != since or node in again
        ]
        # A node that restarted may be another program now: it gets no request until it has said hello.
        self.clients = {client: node for client, node in self.clients.items() if node not in new}
        if new:
            content = pack(self.hello, {})
            messages = [
                Message(content, node, MessageType.QUERY, ttl=self.patience) for node in new
            ]
            self.asked |= dict(zip(self.grid.push_messages(messages), new, strict=True))
        for message in self.grid.pull_messages(list(self.asked)) if self.asked else ():
            node = self.asked.pop(message.metadata.reply_to_message_id, 0)
            if is_lost(message):
                if node in self.active_since and node not in self.clients.values():
                    self.refused[node] = "the question which client it is was lost"
                continue
            try:
                self._meet(message)
            except FcitError as error:
                if self.needs_all:
                    raise
                self.refused[message.metadata.src_node_id] = str(error)

    def _meet(self, message: Message) -> None:
        """Take a node for the client that it says it is. Raises FcitError where it cannot be.

        A node cannot change the name under which the operator registered its key. Nodes of a simulation
        have no names.
        """
        node = message.metadata.src_node_id
        self.refused.pop(node, None)
        self.clients = {client: other for client, other in self.clients.items() if other != node}
        name = self.names.get(node) or ""
        client = read_hello(message, name)
        if name and name != f"client-{client}":
            raise FcitError(
                f"a node says it is client {client}, and its key is registered as {name}; start it with "
                f"its own number, or register its key with --name client-{client}"
            )
        if self.of(client) is not None:
            raise FcitError(f"two nodes say they are client {client}; stop one of them")
        self.clients[client] = node
