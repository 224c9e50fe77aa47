"""The local engine: a round's clients train in parallel worker processes, or in this one."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import TYPE_CHECKING

from fcit.engines import wire
from fcit.recipe.config import Config, to_table
from fcit.rounds.evaluate import Answer
from fcit.types import Fault, FcitError, Identity, Job, Score, State, Turn, Update, Weights
from fcit.weights import flatten, unflatten

if TYPE_CHECKING:
    from fcit.worker.model import ModelWorker


class WorkerDiedError(Exception):
    """A worker process ended in the middle of a request; `kind` is that of a Fault."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind = kind


class WorkerProcess:
    """A process that answers requests on its pipes. gpu: the one that it sees ("": all)."""

    def __init__(self, config: Config, gpu: str = ""):
        self.process = self._start(str(config.training.threads), gpu)
        self.ask({"do": "config", "config": to_table(config)})

    def _start(self, threads: str, gpu: str) -> subprocess.Popen[bytes]:
        variables = {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "FCIT_SERVER": str(os.getpid()),
        }
        if gpu:
            variables["CUDA_VISIBLE_DEVICES"] = gpu
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "fcit.engines.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | variables,
            process_group=0,  # Ctrl-C reaches the server alone, which ends its workers
        )

    def ask(
        self, header: wire.Header, weights: Weights | None = None, deadline: float = 0.0
    ) -> wire.Frame:
        """Send a request and wait for its reply, at most `deadline` seconds (0: no limit)."""
        assert self.process.stdin and self.process.stdout
        late = threading.Event()

        def kill() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(deadline, kill)
        if deadline:
            timer.start()
        try:
            wire.write_frame(self.process.stdin, header, weights)
            reply = wire.read_frame(self.process.stdout)
        except BrokenPipeError:
            reply = None
        except (ValueError, FcitError) as error:
            self.process.kill()
            raise WorkerDiedError(
                "garbled", f"the reply of its worker process cannot be read: {error}"
            ) from None
        finally:
            timer.cancel()
        if reply is None and late.is_set():
            raise WorkerDiedError(
                "timeout", f"no reply within federation.deadline ({deadline:g} s)"
            )
        if reply is None:
            status = self.process.wait()
            raise WorkerDiedError(
                "crash", f"its worker process exited with status {status} (out of memory?)"
            )
        if "error" in reply[0]:
            raise FcitError(reply[0]["error"])
        if "crash" in reply[0]:
            raise RuntimeError(f"in a worker process:\n{reply[0]['crash']}")
        return reply

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class InProcessWorker:
    """Answers the same requests in this process (`workers = 1`)."""

    def __init__(self, config: Config):
        from fcit.worker.model import ModelWorker

        self.model_worker: ModelWorker = ModelWorker(config)

    def ask(
        self, header: wire.Header, weights: Weights | None = None, deadline: float = 0.0
    ) -> wire.Frame:
        """Answer a request; no deadline applies, as nothing could interrupt it."""
        from fcit.engines.process import handle

        return handle(self.model_worker, header, weights or {})

    def close(self) -> None:
        """There is no process to end."""


Worker = WorkerProcess | InProcessWorker


def cores() -> int:
    """The number of CPU cores that this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return [named[at] if any(named) else str(at) for at in range(torch.cuda.device_count())]


def gpus_to_share(config: Config) -> list[str]:
    """The GPUs of which each worker gets one; none where the recipe names a GPU or a `device_map`."""
    model = config.model
    return gpus() if model.device in ("auto", "cuda") and not model.device_map else []


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
        self.workers_lock, self.closed = threading.Lock(), False
        self.free: queue.Queue[Worker] = queue.Queue()
        try:
            in_process = workers == 1 and not self.deadline
            gpus = [] if in_process else gpus_to_share(config)
            self.gpus = gpus if len(gpus) > 1 else [""]
            make = (lambda _: InProcessWorker(config)) if in_process else self._start_worker
            for worker in self.map(make, range(workers)):
                self.workers.append(worker)
                self.free.put(worker)
        except BaseException:
            self.close()
            raise

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

    def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
        """Clients' identity tokens, as they come."""
        requests = [
            (turn.client, {"do": "identify", "turn": wire.pack_turn(turn)}, Weights())
            for turn in turns
        ]
        for client, reply in self._as_completed(requests):
            yield wire.unpack_reply(client, reply, wire.unpack_identity)

    def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
        """Clients' updates, as they come."""
        requests = []
        for job in jobs:
            header, weights = wire.pack_job(job, self.memory.get(job.turn.client, {}))
            requests.append((job.turn.client, header | {"do": "train"}, weights))
        for client, reply in self._as_completed(requests):
            update = wire.unpack_reply(client, reply, wire.unpack_update)
            self.tick()
            yield update

    def place(self, state: State) -> None:
        """Give every worker the state to answer with."""
        self.placed = flatten(replace(state, optimizer={}))
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
        requests = [
            (client, {"do": "score", "client": client, "dataset": dataset}, Weights())
            for client in clients
        ]
        for client, reply in self._as_completed(requests):
            yield wire.unpack_reply(client, reply, wire.unpack_score)

    def ask(self, header: wire.Header, weights: Weights | None = None) -> wire.Frame:
        """Send a request to the next free worker and wait for its reply."""
        worker = self.free.get()
        try:
            return worker.ask(header, weights)
        except WorkerDiedError as died:
            raise FcitError(f"{died}; continue with --resume and federation.workers=1") from None
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

    def _as_completed(
        self, requests: Sequence[tuple[int, wire.Header, Weights]]
    ) -> Iterator[tuple[int, wire.Frame | Fault]]:
        if self.map is map:
            yield from ((request[0], self.turn(*request)) for request in requests)
            return
        futures = {self.pool.submit(self.turn, *request): request[0] for request in requests}
        try:
            for future in as_completed(list(futures)):
                yield futures.pop(future), future.result()  # popped, as it holds a reply
        finally:
            for future in futures:
                future.cancel()
