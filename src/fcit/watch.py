"""Progress: messages and bars on a terminal, or nothing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Watch(Protocol):
    """Shows messages and progress."""

    def say(self, text: str) -> None:
        """Show a message of one line."""
        ...

    def bar(self, label: str, total: int) -> AbstractContextManager[Callable[[float], None]]:
        """A context that gives a function to call with the number of steps done so far."""
        ...


class Silent:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[float], None]]:
        """Draw nothing."""
        yield lambda done: None


class Terminal:
    """Shows messages and progress bars on standard error; standard output is for results."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.open = 0
        self.progress = Progress(
            TextColumn("{task.description:<30}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def say(self, text: str) -> None:
        """Print a message."""
        self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[float], None]]:
        """Draw a bar. Bars opened inside one another are removed together when the last one ends."""
        task = self.progress.add_task(label, total=total)
        self.open += 1

        def step(done: float) -> None:
            self.progress.start()  # at the first step, so that earlier errors print one clean line
            self.progress.update(task, completed=done)

        try:
            yield step
        finally:
            self.open -= 1
            if not self.open:
                self.progress.stop()
                for old in self.progress.task_ids:
                    self.progress.remove_task(old)
