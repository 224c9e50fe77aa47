"""Progress: messages and bars on a terminal, or nothing; and what may be printed there."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol
from unicodedata import category


def printable(text: str) -> str:
    """A text that a terminal shows and does not obey: escapes and other characters without a shape are
    written as in JSON, `\\u001b`. Line breaks, tabs and joiners stay."""

    def shown(letter: str) -> str:
        if letter.isprintable() or letter in "\n\t\u200c\u200d" or category(letter) == "Zs":
            return letter
        units = letter.encode("utf-16-be", "surrogatepass").hex(" ", 2)
        return "\\u" + units.replace(" ", "\\u")

    return "".join(map(shown, text))


class Step(Protocol):
    """Moves a bar to the number of steps done so far. text: its new label, such as the round's loss."""

    def __call__(self, done: float, text: str = "") -> None: ...


class Watch(Protocol):
    """Shows messages and progress."""

    def say(self, text: str) -> None:
        """Show a message of one line."""
        ...

    def bar(self, label: str, total: int) -> AbstractContextManager[Step]:
        """A context that gives a function to call with the number of steps done so far."""
        ...


class Silent:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Step]:
        """Draw nothing."""
        yield lambda done, text="": None


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

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description:<30}", markup=False),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            BarColumn(bar_width=None),
        )
        fitting = max(1, min(len(columns), (console.width - 32) // 9))  # so that no number is cut
        self.open = 0
        self.progress = Progress(*columns[:fitting], console=console)

    def say(self, text: str) -> None:
        """Print a message."""
        plain = printable(text)
        self.progress.console.print(plain, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Step]:
        """Draw a bar. Bars opened inside one another are removed together when the last one ends."""
        task = self.progress.add_task(printable(label), total=total)
        self.open += 1

        def step(done: float, text: str = "") -> None:
            self.progress.start()  # at the first step, so that earlier errors print one clean line
            shown = printable(text) if text else None
            self.progress.update(task, completed=done, description=shown)
            if text and not self.progress.console.is_terminal:
                self.say(text)

        try:
            yield step
        finally:
            self.open -= 1
            if not self.open:
                if self.progress.live.is_started:
                    self.progress.stop()
                for old in self.progress.task_ids:
                    self.progress.remove_task(old)
