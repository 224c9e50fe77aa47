"""Flower's simulation on this machine: every client is a node, and the local engine's workers answer for
all of them, so that each worker loads the base model once.

It uses the internals of Flower's `run_simulation`, but not its Ray workers (decisions/0010). They change
between versions of Flower, hence the narrow version range.
"""

import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import RUN_ID_NUM_BYTES, SUPERLINK_NODE_ID, TASK_ID_NUM_BYTES
from flwr.proto.task_pb2 import Task  # type: ignore[reportAttributeAccessIssue]
from flwr.server.superlink.fleet.vce import vce_api
from flwr.server.superlink.fleet.vce.backend.backend import Backend
from flwr.server.superlink.fleet.vce.metrics import VceMetrics
from flwr.server.superlink.linkstate import InMemoryLinkState, LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import RunRecord
from flwr.server.superlink.linkstate.utils import generate_rand_int_from_bytes
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID
from flwr.supercore.date import now
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.object_store.object_store import ObjectStore
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid

from fcit.engines.local import LocalEngine
from fcit.flower.apps import local_client
from fcit.flower.engine import FlowerEngine
from fcit.flower.messages import pack, unpack
from fcit.recipe.config import Config
from fcit.types import Fault
from fcit.worker.experiment import Experiment

YEAR = 365 * 86400.0
"""Seconds that a simulated round has; workers apply `federation.deadline` to each turn."""

AT_ONCE = 32
"""Messages on their way per worker: enough that none waits for the next, few enough for the memory."""


def simulate(config: Config, workers: int, folder: Path) -> FlowerEngine:
    """An engine whose clients are the nodes of a simulation, which ends with it."""
    home = LocalEngine(config, workers)
    stop, failures = threading.Event(), list[BaseException]()
    try:
        clients = Experiment(config).training_setting.clients
        backend = WorkersBackend(home, workers, folder.resolve(), failures.append)
        grid, runtime = _start_nodes(max(clients, 1), backend, stop)
        runtime.start()
    except BaseException:
        home.close()
        raise

    def check() -> None:
        if failures:
            raise failures[0]

    def end() -> None:
        stop.set()
        home.close()  # its workers end, and with them the turns that the nodes wait for
        runtime.join()

    engine = FlowerEngine(config, grid, home, folder, check, YEAR, at_once=AT_ONCE * workers)
    engine.stack.callback(end)
    return engine


class WorkersBackend(Backend):
    """Lets Flower use the local engine's workers.

    An error of a client is an answer, and so is the death of a worker in its turn, as under the local
    engine. Any other error is no client's fault and goes to `fail`.
    """

    def __init__(
        self, home: LocalEngine, workers: int, run: Path, fail: Callable[[BaseException], None]
    ):
        self.home, self.workers, self.run, self.fail = home, workers, run, fail

    @property
    def num_workers(self) -> int:
        """How many messages are answered at a time."""
        return self.workers

    def build(self, app_fn: Callable[[], ClientApp]) -> None:
        """The workers run already."""

    def is_worker_idle(self) -> bool:
        """Whether a worker is free."""
        return not self.home.free.empty()

    def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
        """Let a free worker answer a node's message."""
        header, weights = unpack(message.content)
        client = local_client(context, self.run)
        about = {"do": "client", "client": client.number, "memory": str(client.memory)}
        try:
            reply = self.home.turn(client.number, about | {"ask": header}, weights)
        except BaseException as error:
            self.fail(error)
            raise
        if isinstance(reply, Fault):
            content = pack({"error": reply.detail, "kind": reply.kind}, {})
        else:
            content = pack(reply[0]["answer"], reply[1])
        return Message(content, reply_to=message), context

    def terminate(self) -> None:
        """The workers end with the local engine."""


class Messages(InMemoryLinkState):
    """Flower's store of messages, with an index of those that wait for a node. Flower's own looks through
    all messages for every node, up to ten times a second."""

    def __init__(self, federations: NoOpFederationManager, objects: ObjectStore):
        super().__init__(federations, objects)
        self.waiting = defaultdict[int, list[str]](list)
        """The messages that each node has not got yet, in the order in which they came."""

    def store_message_ins(self, message: Message) -> str | None:
        """Store a message for a node."""
        key = super().store_message_ins(message)
        if key is not None:
            with self.lock:
                self.waiting[message.metadata.dst_node_id].append(key)
        return key

    def get_message_ins(
        self, node_id: int, limit: int | None, *, run_id: int | None = None
    ) -> list[Message]:
        """The next messages for a node, at most `limit` (None: all). There is one run only."""
        with self.lock:
            if not (keys := self.waiting[node_id]):
                return []
            self.waiting[node_id] = [] if limit is None else keys[limit:]
            keys = keys[:limit]
            self._check_stored_messages(set(keys))  # removes those whose time is over
            found = [self.message_ins_store[key] for key in keys if key in self.message_ins_store]
            for message in found:
                message.metadata.delivered_at = now().isoformat()
        return found


def _start_nodes(
    clients: int, backend: WorkersBackend, stop: threading.Event
) -> tuple[InMemoryGrid, threading.Thread]:
    """A grid with a node for every client, and the thread that delivers their messages."""
    federations, objects = NoOpFederationManager(), ObjectStoreFactory()
    factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, federations, objects)
    state = factory.state_instance = Messages(federations, objects.store())
    run = Run.create_empty(generate_rand_int_from_bytes(RUN_ID_NUM_BYTES))
    run.primary_task_id = generate_rand_int_from_bytes(TASK_ID_NUM_BYTES)
    run.federation_id = NOOP_FEDERATION_ID
    TaskIdentity.task_id, TaskIdentity.run_id = 1, run.run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    state.run_ids[run.run_id] = RunRecord(run=run)
    state.task_store[run.primary_task_id] = Task(task_id=run.primary_task_id, run_id=run.run_id)
    grid = InMemoryGrid(factory)
    grid.set_run(run)
    nodes = vce_api._register_nodes(clients, factory)
    contexts = vce_api._register_node_info_stores(nodes, run)
    arguments = (ClientApp, lambda: backend, nodes, factory, contexts, stop, VceMetrics())
    return grid, threading.Thread(target=vce_api.run_api, args=arguments, daemon=True)
