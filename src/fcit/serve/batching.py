"""Questions that wait together are answered together: a queue, and one thread that works on it."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, TypeVar

from fcit.serve.refusal import Refusal

Q = TypeVar("Q")
R = TypeVar("R")


class Batcher(Generic[Q, R]):
    """`answer` is called in one thread with 1 to `size` questions, and gives for each a reply or the
    exception that stands for it. A batch is closed `window` seconds after its first question, or when
    it is full. At most `room` requests are inside at a time."""

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[R | Exception]],
        size: int,
        window: float,
        room: int,
    ):
        self.answer, self.size, self.window, self.room = answer, size, window, room
        self.held = 0
        self._closed = False
        self._queue: queue.Queue[tuple[Q, Future[R]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the `room` places, for as long as it is open. Raises Refusal (429) when all are
        taken, 503 once closed."""
        if self._closed:
            raise Refusal(503, "the server is shutting down", "shutting_down")
        if self.held >= self.room:
            raise Refusal(429, "too many requests at once; come again", "rate_limit_exceeded")
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1

    async def ask(self, question: Q, timeout: float) -> R:
        """The reply to a question. Raises its exception, or Refusal (503) after `timeout` seconds."""
        future: Future[R] = Future()
        self._queue.put((question, future))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout)
        except TimeoutError:
            said = f"no answer within {timeout:g} seconds; come again"
            raise Refusal(503, said, "timeout") from None

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = self._gather(first)
            # Whoever gave up meanwhile is not answered.
            live = [(question, f) for question, f in batch if f.set_running_or_notify_cancel()]
            if live:
                self._reply(live)

    def _gather(self, first: tuple[Q, Future[R]]) -> list[tuple[Q, Future[R]]]:
        batch, until = [first], time.monotonic() + self.window
        while len(batch) < self.size:
            try:
                one = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if one is None:
                self._queue.put(None)
                break
            batch.append(one)
        return batch

    def _reply(self, batch: list[tuple[Q, Future[R]]]) -> None:
        try:
            found = self.answer([question for question, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for one in batch:  # one bad question must not spoil the others' answers
                self._reply([one])
            return
        for (_, future), reply in zip(batch, found, strict=True):
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)
