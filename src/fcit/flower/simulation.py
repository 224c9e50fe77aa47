"""Flower's simulation on this machine: every client is a node, and the local engine's workers answer for
all of them, so that each worker loads the base model once.

It uses the internals of Flower's `run_simulation`, but not its Ray workers (decisions/0010). They change
between versions of Flower, hence the narrow version range.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

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
from flwr.supercore.object_store import ObjectStoreFactory
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

    engine = FlowerEngine(config, grid, home, folder, check, YEAR)
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


def _start_nodes(
    clients: int, backend: WorkersBackend, stop: threading.Event
) -> tuple[InMemoryGrid, threading.Thread]:
    """A grid with a node for every client, and the thread that delivers their messages."""
    factory = LinkStateFactory(
        FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory()
    )
    state = cast(InMemoryLinkState, factory.state())
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
