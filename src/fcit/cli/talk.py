"""`fcit chat`: questions about an image at a terminal, or through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from fcit.types import FcitError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fcit.runs.api import Run

HELP = "/image PATH sets the image, /quit ends; every question stands alone, without a history"
SHOWN = 0.005
"""Activation factors below this get no bar."""


def talk(run: Run, image: Path | None) -> None:
    """Answer questions until the input ends or says /quit.

    A mistake is printed at a terminal and raised (FcitError) in a pipe.
    """
    from rich.console import Console

    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # `answer` says what is not in its encoding
    console, live = Console(highlight=False), sys.stdin.isatty()
    if image is not None:
        image = _existing(str(image))
    trained = run.trained_by
    if live:
        console.print(f"[bold]{run.folder}[/bold]: {run.config.method.name}\n[dim]{HELP}[/dim]")
    for line in _lines(console, live):
        try:
            if line.startswith("/image"):
                image = _existing(line.removeprefix("/image").strip())
            elif line.startswith("/"):
                raise FcitError(f"{line.split()[0]}: no such command; {HELP}")
            elif image is None:
                raise FcitError("set an image first: /image PATH")
            else:
                answer = run.answer(image, line)
                console.print(answer.text or "(empty answer)", style="bold", markup=False)
                if len(answer.activation) > 1:
                    console.print(bars(answer.activation, trained))
        except FcitError as error:
            if not live:
                raise
            console.print(str(error), style="red", markup=False)


def bars(activation: Mapping[str, float], trained_by: Mapping[str, Sequence[str]]) -> Table:
    """The activation factors as bars, largest first, with the tasks that trained each subspace."""
    from rich.bar import Bar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for name, share in sorted(activation.items(), key=lambda item: -abs(item[1])):
        if abs(share) < SHOWN:
            continue
        label = Text(" ".join([name, ", ".join(trained_by.get(name, ()))]), style="dim")
        bar = Bar(1.0, 0.0, min(max(share, 0.0), 1.0), width=24, color="cyan")
        table.add_row(label, bar, Text(f"{share:.2f}", style="dim"))
    return table


def _lines(console: Console, live: bool) -> Iterator[str]:
    """The input's lines, without empty ones."""
    while True:
        try:
            line = console.input("[cyan]> [/cyan]") if live else sys.stdin.readline()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if (not live and not line) or line.strip() in ("/quit", "/exit"):
            return
        if line.strip():
            yield line.strip()


def _existing(name: str) -> Path:
    path = Path(name).expanduser()
    if not name or not path.is_file():
        raise FcitError(f"{name or '/image'}: no such image file")
    return path
