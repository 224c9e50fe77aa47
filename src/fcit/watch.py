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

        self.console = Console(stderr=True)

    def say(self, text: str) -> None:
        """Print one line of news."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Callable[[float], None]]:
        """Draw a bar; where there is no terminal, a line at its start and at its end."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(label, total=total)
            yield lambda done: progress.update(task, completed=done)
