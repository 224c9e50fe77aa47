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


class GoneError(Exception):
    """A worker process ended in the middle of a request; `kind` is that of a Fault."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind = kind


class Worker:
    """One worker process, spoken to through its pipes. gpu: the one it sees ("": all)."""

    def __init__(self, config: Config, gpu: str = ""):
        self.process = self._start(str(config.training.threads), gpu)
        self.ask({"do": "config", "config": to_table(config)})

    def _start(self, threads: str, gpu: str) -> subprocess.Popen[bytes]:
        quiet = {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "FCIT_SERVER": str(os.getpid()),
        }
        own = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "fcit.engines.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | quiet | own,
            process_group=0,  # Ctrl-C reaches the server alone, which ends its workers
        )

    def ask(
        self, header: wire.Header, weights: Weights | None = None, deadline: float = 0.0
    ) -> wire.Frame:
        """Send a request and wait for its reply, for `deadline` seconds at most (0: for ever)."""
        assert self.process.stdin and self.process.stdout
        late = threading.Event()

        def end() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(deadline, end) if deadline else None
        if timer:
            timer.start()
        try:
            wire.write_frame(self.process.stdin, header, weights)
            reply = wire.read_frame(self.process.stdout)
        except BrokenPipeError:
            reply = None
        except (ValueError, FcitError) as error:
            self.process.kill()
            raise GoneError("garbled", f"its worker's reply cannot be read: {error}") from None
        finally:
            if timer:
                timer.cancel()
        if reply is None and late.is_set():
            raise GoneError("timeout", f"no reply within federation.deadline ({deadline:g} s)")
        if reply is None:
            status = self.process.wait()
            raise GoneError(
                "crash", f"its worker process ended with status {status} (out of memory?)"
            )
        if "error" in reply[0]:
            raise FcitError(reply[0]["error"])
        if "crash" in reply[0]:
            raise RuntimeError(f"in a worker:\n{reply[0]['crash']}")
        return reply

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class InProcess:
    """The same requests answered by a site in this process (`workers = 1`)."""

    def __init__(self, config: Config):
        from fcit.worker.model import ModelWorker

        self.site: ModelWorker = ModelWorker(config)

    def ask(
        self, header: wire.Header, weights: Weights | None = None, deadline: float = 0.0
    ) -> wire.Frame:
        """Answer at once; nobody could end a request that takes too long."""
        from fcit.engines.process import handle

        return handle(self.site, header, weights or {})

    def close(self) -> None:
        """Nothing to end."""


def cores() -> int:
    """How many this process may use."""
    own = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if own else os.cpu_count() or 1


def gpus() -> list[str]:
    """CUDA's GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return [named[at] if any(named) else str(at) for at in range(torch.cuda.device_count())]


def shared(config: Config) -> list[str]:
    """The GPUs that workers share out among them: none where the recipe names one, or spreads a model
    over all of them."""
    model = config.model
    return gpus() if model.device in ("auto", "cuda") and not model.device_map else []


class LocalEngine:
    """Clients on this machine. `memory` is what each client keeps between its turns: it goes to them with
    their jobs, comes back in their updates, and whoever accepts these puts it here.

    A worker that dies in a client's turn, or is ended at the deadline, is that client's fault and is
    replaced; what a client says is wrong (an image that cannot be read) ends the round, because whoever
    runs this engine can mend it.

    The bits of every reply are the same for any number of workers: a client trains alone, with its
    own number of threads and its own random streams.
    """

    def __init__(self, config: Config, workers: int):
        self.config, self.memory = config, dict[int, Weights]()
        self.placed: Weights | None = None
        self.tick: Callable[[], None] = lambda: None
        self.pool = ThreadPoolExecutor(workers)
        self.map = map if workers == 1 else self.pool.map  # one worker answers in this very thread
        self.deadline, self.closed, self.crew = config.federation.deadline, False, threading.Lock()
        self.all: list[Worker | InProcess] = []
        self.free: queue.Queue[Worker | InProcess] = queue.Queue()
        try:
            alone = workers == 1 and not self.deadline
            own = [] if alone else shared(config)
            self.gpus = own if len(own) > 1 else [""]
            make = (lambda _: InProcess(config)) if alone else self._worker
            for one in self.map(make, range(workers)):
                self.all.append(one)
                self.free.put(one)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        with self.crew:
            self.closed = True
            for one in self.all:
                one.close()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def start(self) -> State:
        """The method's state before the first round."""
        return unflatten(self.ask({"do": "start"})[1])

    def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
        """Clients' identity tokens, as they come."""
        asks = [
            (turn.client, {"do": "identify", "turn": wire.pack_turn(turn)}, Weights())
            for turn in turns
        ]
        for client, reply in self._as_completed(asks):
            yield wire.understood(client, reply, wire.unpack_identity)

    def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
        """Clients' updates, as they come."""
        asks = []
        for job in jobs:
            header, weights = wire.pack_job(job, self.memory.get(job.turn.client, {}))
            asks.append((job.turn.client, header | {"do": "train"}, weights))
        for client, reply in self._as_completed(asks):
            found = wire.understood(client, reply, _with_memory)
            self.tick()
            yield found

    def place(self, state: State) -> None:
        """Put a state in place at every worker, to answer with."""
        self.placed = flatten(replace(state, optimizer={}))
        list(self.map(lambda one: one.ask({"do": "place"}, self.placed), self.all))

    def answer(self, dataset: str, chunks: Sequence[Sequence[int]]) -> Iterator[list[Answer]]:
        """Answers to chunks of a dataset's test samples (indices), in the order given."""
        asks = [{"do": "answer", "dataset": dataset, "indices": list(part)} for part in chunks]
        for header, _ in self.map(self.ask, asks):
            yield [Answer(**row) for row in header["answers"]]

    def score(self, dataset: str, clients: Sequence[int]) -> Iterator[Score | Fault]:
        """Clients' scores of the state in place on their own test samples, as they come."""
        asks = [
            (client, {"do": "score", "client": client, "dataset": dataset}, Weights())
            for client in clients
        ]
        for client, reply in self._as_completed(asks):
            yield wire.understood(client, reply, wire.unpack_score)

    def ask(self, header: wire.Header, weights: Weights | None = None) -> wire.Frame:
        """Send a request to a worker that is free, or once one is, and wait for its reply."""
        one = self.free.get()
        try:
            return one.ask(header, weights)
        except GoneError as gone:
            raise FcitError(f"{gone}; try federation.workers=1, then go on with --resume") from None
        finally:
            self.free.put(one)

    def turn(self, client: int, header: wire.Header, weights: Weights) -> wire.Frame | Fault:
        """What a worker answers for a client; a worker that dies or exceeds the deadline is its fault."""
        one = self.free.get()
        try:
            return one.ask(header, weights, self.deadline)
        except GoneError as gone:
            one = self._replaced(one)
            return Fault(client, gone.kind, str(gone))
        finally:
            self.free.put(one)

    def _worker(self, place: int) -> Worker:
        return Worker(self.config, self.gpus[place % len(self.gpus)])

    def _replaced(self, gone: Worker | InProcess) -> Worker | InProcess:
        """Another worker in the place of one that is gone, unless the engine is closing."""
        with self.crew:
            if self.closed:
                return gone
            gone.close()
            place = self.all.index(gone)
            try:
                self.all[place] = self._worker(place)
                if self.placed is not None:
                    self.all[place].ask({"do": "place"}, self.placed)
            except GoneError as again:
                raise FcitError(f"no new worker can be started: {again}") from None
            return self.all[place]

    def _as_completed(
        self, asks: Sequence[tuple[int, wire.Header, Weights]]
    ) -> Iterator[tuple[int, wire.Frame | Fault]]:
        if self.map is map:
            yield from ((ask[0], self.turn(*ask)) for ask in asks)
            return
        futures = {self.pool.submit(self.turn, *ask): ask[0] for ask in asks}
        try:
            for future in as_completed(list(futures)):
                yield futures.pop(future), future.result()  # or all replies would stay in memory
        finally:
            for future in futures:
                future.cancel()


def _with_memory(header: wire.Header, weights: Weights) -> Update:
    update, memory = wire.unpack_update(header, weights)
    return replace(update, memory=memory)
