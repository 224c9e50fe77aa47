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

from fcit.use.serve.refusal import Refusal

Q = TypeVar("Q")
R = TypeVar("R")


class Asked(Generic[Q, R]):
    """A question, its reply to come, and whether nobody waits for it any more. (A future that is being
    worked on cannot be cancelled, so that is said beside it.)"""

    def __init__(self, question: Q):
        self.question, self.gone = question, False
        self.future: Future[R] = Future()


class Batcher(Generic[Q, R]):
    """`answer` is called in one thread with 1 to `size` questions, and gives for each a reply or the
    exception that stands for it. Its second argument tells it, while it works, whether anybody still
    waits. A batch is closed `window` seconds after its first question, or when it is full. At most
    `room` requests are inside at a time."""

    def __init__(
        self,
        answer: Callable[[Sequence[Q], Callable[[], bool]], Sequence[R | Exception]],
        size: int,
        window: float,
        room: int,
    ):
        self.answer, self.size, self.window, self.room = answer, size, window, room
        self.held = 0
        self._closed = False
        self._queue: queue.Queue[Asked[Q, R] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the `room` places, for as long as it is open. Raises Refusal (429) when all are
        taken, 503 once closed."""
        if self._closed:
            raise _closing()
        if self.held >= self.room:
            raise Refusal(429, "too many requests at once; come again", "rate_limit_exceeded")
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1

    async def ask(self, question: Q, timeout: float) -> R:
        """The reply to a question. Raises its exception, or Refusal (503) after `timeout` seconds."""
        if self._closed:
            raise _closing()
        asked: Asked[Q, R] = Asked(question)
        self._queue.put(asked)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked.future), timeout)
        except TimeoutError:
            said = f"no answer within {timeout:g} seconds; come again"
            raise Refusal(503, said, "timeout") from None
        finally:
            asked.gone = True

    def close(self) -> None:
        """Give up what waits and what is being answered (503), and end the thread."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [
                one for one in self._gather(first) if one.future.set_running_or_notify_cancel()
            ]
            self._reply(batch)

    def _gather(self, first: Asked[Q, R]) -> list[Asked[Q, R]]:
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

    def _reply(self, batch: list[Asked[Q, R]]) -> None:
        batch = [one for one in batch if not one.gone]
        if not batch:
            return

        def wanted() -> bool:
            return not self._closed and not all(one.gone for one in batch)

        found: Sequence[R | Exception] = ()
        try:
            if wanted():
                found = self.answer([one.question for one in batch], wanted)
        except Exception as error:
            if len(batch) > 1:
                for one in batch:  # one bad question must not spoil the others' answers
                    self._reply([one])
                return
            found = [error]
        if self._closed or not found:
            found = [_closing()] * len(batch)
        for one, reply in zip(batch, found, strict=True):
            if isinstance(reply, Exception):
                one.future.set_exception(reply)
            else:
                one.future.set_result(reply)


def _closing() -> Refusal:
    return Refusal(503, "the server is shutting down", "shutting_down")
