"""Worker processes that outlive their engine, so that few of them import torch and transformers."""

from __future__ import annotations

import os
import subprocess
import threading

from fcit.engines import wire
from fcit.engines.workers import WorkerDiedError, WorkerProcess
from fcit.types import FcitError, Weights

Kind = tuple[str, str, frozenset[tuple[str, str]]]
"""What a process was started with: its threads, its GPU and its environment."""

IDLE: list[tuple[Kind, subprocess.Popen[bytes]]] = []


class WarmWorker(WorkerProcess):
    """A worker whose process is taken over by a later engine, which sends it its own recipe.

    A process that is dead, or in the middle of a request, ends with its engine, as that of a
    `WorkerProcess` does.
    """

    def _start(self, threads: str, gpu: str) -> subprocess.Popen[bytes]:
        self.lock, self.asking, self.closed = threading.Lock(), False, False
        own = {"PYTEST_CURRENT_TEST", "COLUMNS"}
        environment = frozenset(item for item in os.environ.items() if item[0] not in own)
        self.kind: Kind = (threads, gpu, environment)
        with LOCK:
            for at, (kind, process) in enumerate(IDLE):
                if kind == self.kind:
                    del IDLE[at]
                    return process
        return super()._start(threads, gpu)

    def ask(
        self, header: wire.Header, weights: Weights | None = None, deadline: float = 0.0
    ) -> wire.Frame:
        with self.lock:
            if self.closed:
                raise WorkerDiedError("crash", "its engine is closed")
            self.asking = True
        try:
            reply = super().ask(header, weights, deadline)
        except (
            FcitError,
            RuntimeError,
        ):  # an answer as well: the process waits for the next request
            self.asking = False
            raise
        self.asking = False
        return reply

    def close(self) -> None:
        with self.lock:
            if self.closed:
                return
            self.closed = True
            if self.asking or self.process.poll() is not None:
                super().close()
            else:
                IDLE.append((self.kind, self.process))


LOCK = threading.Lock()


def end() -> None:
    """End the processes that wait for an engine."""
    while IDLE:
        _, process = IDLE.pop()
        process.kill()
        process.communicate()
