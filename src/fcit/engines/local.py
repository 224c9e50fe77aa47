"""The local engine: a round's clients train in parallel worker processes, or in this one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace

from fcit.engines import wire
from fcit.engines.workers import (
    InProcessWorker,
    Worker,
    WorkerDiedError,
    WorkerProcess,
    gpus_to_share,
)
from fcit.recipe.config import Config
from fcit.rounds.evaluate import Answer
from fcit.types import Fault, FcitError, Identity, Job, Score, State, Turn, Update, Weights
from fcit.weights import flatten, unflatten


@contextmanager
def alive() -> Iterator[None]:
    """Raises FcitError where a worker dies that works for no single client."""
    try:
        yield
    except WorkerDiedError as died:
        raise FcitError(f"{died}; continue with --resume and federation.workers=1") from None


class LocalEngine:
    """Trains the clients of a run on this machine.

    A worker that dies in a client's turn, or is killed at the deadline, counts as that client's fault and
    is replaced. An error that a client reports (an image that cannot be read) ends the round: the user
    of this machine can repair it.

    Replies have the same bits with any number of workers: every client trains alone, with a fixed number
    of threads and random streams of its own.
    """

    def __init__(self, config: Config, workers: int):
        self.config = config
        self.memory = dict[int, Weights]()
        """By client: sent with its jobs, returned in its updates, put here by whoever accepts those."""
        self.placed: Weights | None = None
        self.tick: Callable[[], None] = lambda: None
        self.pool = ThreadPoolExecutor(workers)
        self.map = map if workers == 1 else self.pool.map  # one worker answers in this very thread
        self.deadline = config.federation.deadline
        self.workers: list[Worker] = []
        begun: dict[int, Worker] = {}
        self.workers_lock, self.closed = threading.Lock(), False
        self.free: queue.Queue[Worker] = queue.Queue()
        try:
            in_process = workers == 1 and not self.deadline
            gpus = [] if in_process else gpus_to_share(config)
            self.gpus = gpus if len(gpus) > 1 else [""]

            def make(number: int) -> None:
                begun[number] = (
                    InProcessWorker(config) if in_process else self._start_worker(number)
                )

            with alive():
                list(self.map(make, range(workers)))
        except BaseException:
            self.pool.shutdown(cancel_futures=True)  # those that are just starting are closed, too
            self.workers = list(begun.values())
            self.close()
            raise
        self.workers = [begun[number] for number in range(workers)]
        for worker in self.workers:
            self.free.put(worker)

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        with self.workers_lock:
            self.closed = True
            for worker in self.workers:
                worker.close()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def start(self) -> State:
        """The method's state before the first round."""
        return unflatten(self.ask({"do": "start"})[1])

    def token_width(self) -> int:
        """How many numbers an identity token has; 0 for a method without tokens."""
        return self.ask({"do": "token width"})[0]["width"]

    def check_lengths(self, tasks: Iterable[str]) -> Iterator[tuple[int, int]]:
        """For each task: of how many training samples answers are cut off, and how many there are. Raises
        FcitError naming the first that does not fit at all (see `ModelWorker.check_lengths`)."""
        asked = [{"do": "check lengths", "task": name} for name in tasks]
        for header, _ in self.map(self.ask, asked):
            yield header["cut"], header["count"]

    def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
        """Clients' identity tokens, as they come."""
        yield from self._replies(list(map(wire.ask_identity, turns)), wire.unpack_identity)

    def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
        """Clients' updates, as they come."""
        requests = list[wire.Request]()
        for job in jobs:
            client = job.turn.client
            requests.append((client, *wire.pack_job(job, self.memory.get(client, {}))))
        for update in self._replies(requests, wire.unpack_update):
            self.tick()
            yield update

    def place(self, state: State) -> None:
        """Give every worker the state to answer with."""
        self.placed = flatten(replace(state, optimizer={}))
        with alive():
            list(self.map(lambda worker: worker.ask({"do": "place"}, self.placed), self.workers))

    def answer(self, dataset: str, chunks: Sequence[Sequence[int]]) -> Iterator[list[Answer]]:
        """Answers to chunks of a dataset's test samples (indices), in the order given."""
        requests = [
            {"do": "answer", "dataset": dataset, "indices": list(chunk)} for chunk in chunks
        ]
        for header, _ in self.map(self.ask, requests):
            yield [Answer(**row) for row in header["answers"]]

    def score(self, dataset: str, clients: Sequence[int]) -> Iterator[Score | Fault]:
        """Clients' scores of the placed state on their own test samples, as they come."""
        requests = [wire.ask_score(client, dataset) for client in clients]
        yield from self._replies(requests, wire.unpack_score)

    def ask(self, header: wire.Header) -> wire.Frame:
        """Send a request to the next free worker and wait for its reply."""
        worker = self.free.get()
        try:
            with alive():
                return worker.ask(header)
        finally:
            self.free.put(worker)

    def turn(self, client: int, header: wire.Header, weights: Weights) -> wire.Frame | Fault:
        """A worker's reply for a client; a worker that dies or exceeds the deadline is its fault."""
        worker = self.free.get()
        try:
            return worker.ask(header, weights, self.deadline)
        except WorkerDiedError as died:
            worker = self._replace(worker)
            return Fault(client, died.kind, str(died))
        finally:
            self.free.put(worker)

    def _start_worker(self, number: int) -> Worker:
        return WorkerProcess(self.config, self.gpus[number % len(self.gpus)])

    def _replace(self, dead: Worker) -> Worker:
        """Start another worker in the place of a dead one, unless the engine is closing."""
        with self.workers_lock:
            if self.closed:
                return dead
            dead.close()
            number = self.workers.index(dead)
            try:
                worker = self.workers[number] = self._start_worker(number)
                if self.placed is not None:
                    worker.ask({"do": "place"}, self.placed)
            except WorkerDiedError as error:
                raise FcitError(f"no new worker process can be started: {error}") from None
            return worker

    def _replies(
        self,
        requests: Sequence[wire.Request],
        unpack: Callable[[wire.Header, Weights], wire.ReplyType],
    ) -> Iterator[wire.ReplyType | Fault]:
        """Clients' replies, as they come; of one worker, in the order of the requests."""
        if self.map is map:
            for request in requests:
                yield wire.unpack_reply(request[0], self.turn(*request), unpack)
            return
        futures = {self.pool.submit(self.turn, *request): request[0] for request in requests}
        try:
            for future in as_completed(list(futures)):
                client = futures.pop(future)  # or all replies would stay in memory
                yield wire.unpack_reply(client, future.result(), unpack)
        finally:
            for future in futures:
                future.cancel()
