"""Questions that wait at the same time are answered in one batch, by one thread."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, TypeVar

from fcit.use.serve.requests import Refusal

Q = TypeVar("Q")
R = TypeVar("R")


class Waiting(Generic[Q, R]):
    """A question and its future reply. A future that is being worked on cannot be cancelled; `gone` says
    that nobody waits for it any more."""

    def __init__(self, question: Q):
        self.question, self.gone = question, False
        self.future: Future[R] = Future()


class Batcher(Generic[Q, R]):
    """A queue of questions and the thread that answers them.

    answer: called with 1 to `size` questions, returns a reply or an exception for each; its second
    argument returns False once nobody waits. A batch is closed `window` seconds after its first question,
    or when it is full. At most `capacity` requests are in progress at a time.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q], Callable[[], bool]], Sequence[R | Exception]],
        size: int,
        window: float,
        capacity: int,
    ):
        self.answer, self.size, self.window, self.capacity = answer, size, window, capacity
        self.in_progress = 0
        self._closed = False
        self._queue: queue.Queue[Waiting[Q, R] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Count one request in progress, until the block ends. Raises Refusal: 429 when all are taken,
        503 once closed."""
        if self._closed:
            raise _closing()
        if self.in_progress >= self.capacity:
            raise Refusal(429, "too many requests at once; try again", "rate_limit_exceeded")
        self.in_progress += 1
        try:
            yield
        finally:
            self.in_progress -= 1

    async def ask(self, question: Q, timeout: float) -> R:
        """The reply to a question. Raises its exception, or Refusal (503) after `timeout` seconds."""
        if self._closed:
            raise _closing()
        waiting: Waiting[Q, R] = Waiting(question)
        self._queue.put(waiting)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(waiting.future), timeout)
        except TimeoutError:
            message = f"no answer within {timeout:g} seconds; try again"
            raise Refusal(503, message, "timeout") from None
        finally:
            waiting.gone = True

    def close(self) -> None:
        """Give up all questions (503), and end the thread."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = self._gather(first)
            self._reply([each for each in batch if each.future.set_running_or_notify_cancel()])

    def _gather(self, first: Waiting[Q, R]) -> list[Waiting[Q, R]]:
        batch, until = [first], time.monotonic() + self.window
        while len(batch) < self.size:
            try:
                waiting = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if waiting is None:
                self._queue.put(None)
                break
            batch.append(waiting)
        return batch

    def _reply(self, batch: list[Waiting[Q, R]]) -> None:
        batch = [waiting for waiting in batch if not waiting.gone]

        def wanted() -> bool:
            return not self._closed and not all(waiting.gone for waiting in batch)

        replies: Sequence[R | Exception] = ()
        try:
            if wanted():
                replies = self.answer([waiting.question for waiting in batch], wanted)
        except Exception as error:
            if len(batch) > 1:
                for waiting in batch:  # one bad question must not spoil the others' answers
                    self._reply([waiting])
                return
            replies = [error]
        if self._closed or not replies:
            replies = [_closing()] * len(batch)
        for waiting, reply in zip(batch, replies, strict=True):
            if isinstance(reply, Exception):
                waiting.future.set_exception(reply)
            else:
                waiting.future.set_result(reply)


def _closing() -> Refusal:
    return Refusal(503, "the server is shutting down", "shutting_down")
