"""The local engine: a round's clients train in parallel worker processes, or in this one."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import TYPE_CHECKING

from fcit.config import Config
from fcit.engines import wire
from fcit.evaluate import Answer
from fcit.types import FcitError, Identity, Job, State, Turn, Update, Weights
from fcit.weights import flatten, unflatten

if TYPE_CHECKING:
    from fcit.experiment import Site

Reply = tuple[wire.Header, Weights]


class Worker:
    """One worker process, spoken to through its pipes."""

    def __init__(self, config: Config):
        threads = str(config.training.threads)
        quiet = {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "FCIT_SERVER": str(os.getpid()),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fcit.engines.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | quiet,
            process_group=0,  # Ctrl-C reaches the server alone, which ends its workers
        )
        self.ask({"do": "config", "config": config.model_dump(mode="json")})

    def ask(self, header: wire.Header, weights: Weights | None = None) -> Reply:
        """Send a request and wait for its reply."""
        assert self.process.stdin and self.process.stdout
        try:
            wire.write_frame(self.process.stdin, header, weights)
            reply = wire.read_frame(self.process.stdout)
        except BrokenPipeError:
            reply = None
        if reply is None:
            raise FcitError(
                f"a worker process ended with status {self.process.wait()} (out of memory?); "
                "try federation.workers=1, then go on with --resume"
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
        from fcit.experiment import Site

        self.site: Site = Site(config)

    def ask(self, header: wire.Header, weights: Weights | None = None) -> Reply:
        from fcit.engines.worker import handle

        return handle(self.site, header, weights or {})

    def close(self) -> None:
        """Nothing to end."""


def cores() -> int:
    """How many this process may use."""
    own = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if own else os.cpu_count() or 1


class LocalEngine:
    """Clients on this machine. `memory` is what each client keeps between its turns.

    The bits of every reply are the same for any number of workers: a client trains alone, with its
    own number of threads and its own random streams.
    """

    def __init__(self, config: Config, workers: int):
        self.config, self.memory = config, dict[int, Weights]()
        self.tick: Callable[[], None] = lambda: None
        self.pool = ThreadPoolExecutor(workers)
        self.map = map if workers == 1 else self.pool.map  # one worker answers in this very thread
        self.all: list[Worker | InProcess] = []
        self.free: queue.Queue[Worker | InProcess] = queue.Queue()
        try:
            kind = InProcess if workers == 1 else Worker
            for one in self.map(lambda _: kind(config), range(workers)):
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
        for one in self.all:
            one.close()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def start(self) -> State:
        """The method's state before the first round."""
        return unflatten(self.ask({"do": "start"})[1])

    def identify(self, turns: Sequence[Turn]) -> Iterator[Identity]:
        """Clients' identity tokens, as they come."""
        asks = [({"do": "identify", "turn": wire.pack_turn(turn)}, {}) for turn in turns]
        return (wire.unpack_identity(*reply) for reply in self._as_completed(asks))

    def run(self, jobs: Sequence[Job]) -> Iterator[Update]:
        """Clients' updates, as they come."""
        asks = []
        for job in jobs:
            header, weights = wire.pack_job(job, self.memory.get(job.turn.client, {}))
            asks.append((header | {"do": "train"}, weights))
        for reply in self._as_completed(asks):
            update, memory = wire.unpack_update(*reply)
            self.memory[update.client] = memory
            self.tick()
            yield update

    def place(self, state: State) -> None:
        """Put a state in place at every worker, to answer with."""
        weights = flatten(replace(state, optimiser={}))
        list(self.map(lambda one: one.ask({"do": "place"}, weights), self.all))

    def answer(self, dataset: str, chunks: Sequence[Sequence[int]]) -> Iterator[list[Answer]]:
        """Answers to chunks of a dataset's test samples (indices), in the order given."""
        asks = [{"do": "answer", "dataset": dataset, "indices": list(part)} for part in chunks]
        for header, _ in self.map(self.ask, asks):
            yield [Answer(text, activation) for text, activation in header["answers"]]

    def ask(self, header: wire.Header, weights: Weights | None = None) -> Reply:
        """Send a request to a worker that is free, or once one is, and wait for its reply."""
        one = self.free.get()
        try:
            return one.ask(header, weights)
        finally:
            self.free.put(one)

    def _as_completed(self, asks: Iterable[Reply]) -> Iterator[Reply]:
        if self.map is map:
            yield from (self.ask(header, weights) for header, weights in asks)
            return
        futures = [self.pool.submit(self.ask, header, weights) for header, weights in asks]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
