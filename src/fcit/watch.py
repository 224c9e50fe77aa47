"""Whoever wants to know how long work goes on: nobody, or a person at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Watch(Protocol):
    """Told one line of news at a time, and the steps of anything long."""

    def say(self, text: str) -> None:
        """One line of news."""
        ...

    def bar(self, label: str, total: int) -> AbstractContextManager[Callable[[float], None]]:
        """While it is open: a function to call with the number of steps that are done."""
        ...


class Silent:
    """Watches nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[float], None]]:
        """Draw nothing."""
        yield lambda done: None


class Terminal:
    """Progress bars and news on standard error, so that standard output holds results alone."""

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
        """Print one line of news."""
        self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[float], None]]:
        """Draw a bar; bars opened inside one another stand together and are drawn once they end."""
        task = self.progress.add_task(label, total=total)
        self.open += 1

        def step(done: float) -> None:
            self.progress.start()  # at the first step: what fails before it fails in one line
            self.progress.update(task, completed=done)

        try:
            yield step
        finally:
            self.open -= 1
            if not self.open:
                self.progress.stop()
                for old in self.progress.task_ids:
                    self.progress.remove_task(old)
