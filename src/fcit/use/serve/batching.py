"""Questions that wait at the same time are answered in one batch, by one thread."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from fcit.use.serve.requests import Refusal

Q = TypeVar("Q")
R = TypeVar("R")
Waiting = tuple[Q, asyncio.Future[R]]
"""A question and its future reply, which is done (cancelled) once nobody waits for it any more."""


class Batcher(Generic[Q, R]):
    """A queue of questions, and the thread that answers them while `work` runs.

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
        self._queue: asyncio.Queue[Waiting[Q, R]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "answers")

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Count one request in progress until the block ends. Raises Refusal (429) when all are taken."""
        if self.in_progress >= self.capacity:
            raise Refusal(429, "too many requests at once; try again", "rate_limit_exceeded")
        self.in_progress += 1
        try:
            yield
        finally:
            self.in_progress -= 1

    async def ask(self, question: Q, timeout: float) -> R:
        """The reply to a question. Raises its exception, or Refusal (503) after `timeout` seconds."""
        reply: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((question, reply))
        try:
            return await asyncio.wait_for(reply, timeout)
        except TimeoutError:
            message = f"no answer within {timeout:g} seconds; try again"
            raise Refusal(503, message, "timeout") from None

    async def work(self) -> None:
        """Answer what is asked, until cancelled."""
        while True:
            batch = [await self._queue.get()]
            with suppress(TimeoutError):
                async with asyncio.timeout(self.window):
                    while len(batch) < self.size:
                        batch.append(await self._queue.get())
            await self._reply(batch)

    async def _reply(self, batch: list[Waiting[Q, R]]) -> None:
        batch = [(question, reply) for question, reply in batch if not reply.done()]
        if not batch:
            return

        def wanted() -> bool:
            return not all(reply.done() for _, reply in batch)

        questions = [question for question, _ in batch]
        loop = asyncio.get_running_loop()
        try:
            said = await loop.run_in_executor(self._thread, self.answer, questions, wanted)
        except Exception as error:
            if len(batch) > 1:
                for waiting in batch:  # one bad question must not spoil the others' answers
                    await self._reply([waiting])
                return
            said = [error]
        for (_, reply), each in zip(batch, said, strict=True):
            if reply.done():
                continue
            if isinstance(each, Exception):
                reply.set_exception(each)
            else:
                reply.set_result(each)
