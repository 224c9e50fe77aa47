"""`fcit chat`: questions about an image at a terminal, or through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fcit.cli.screen import show
from fcit.files import home
from fcit.types import FcitError

if TYPE_CHECKING:
    from fcit.runs.api import Run

HELP = "/image PATH sets the image, /quit ends; every question stands alone, without a history"
SHOWN = 0.005
"""Activation factors below this get no bar."""
WIDTH = 24
"""Width of the longest bar, in characters."""


def talk(run: Run, image: Path | None) -> None:
    """Answer questions until the input ends or says /quit.

    A mistake is printed at a terminal and raised (FcitError) in a pipe.
    """
    live = sys.stdin.isatty()
    if image is not None:
        image = _existing(str(image))
    trained = run.trained_by
    if live:
        show(f"{run.folder}: {run.config.method.name}", HELP)
    for line in _lines(live):
        try:
            if line.startswith("/image"):
                image = _existing(line.removeprefix("/image").strip())
            elif line.startswith("/"):
                raise FcitError(f"{line.split()[0]}: no such command; {HELP}")
            elif image is None and line:
                raise FcitError("set an image first: /image PATH")
            elif image and line:
                if "worker" not in vars(run):  # it is loaded by the first question
                    show("loading the model", err=True)
                answer = run.answer(image, line)
                show(answer.text or "(empty answer)")
                if len(answer.activation) > 1:
                    show(*bars(answer.activation, trained))
        except FcitError as error:
            if not live:
                raise
            show(str(error))


def bars(activation: Mapping[str, float], trained_by: Mapping[str, Sequence[str]]) -> list[str]:
    """The activation factors as bars, largest first, with the tasks that trained each subspace."""
    labels = {name: " ".join([name, ", ".join(trained_by.get(name, ()))]) for name in activation}
    width = max(map(len, labels.values()))
    return [
        f"{labels[name]:<{width}} {'█' * round(WIDTH * min(max(share, 0), 1)):<{WIDTH}} {share:.2f}"
        for name, share in sorted(activation.items(), key=lambda item: -abs(item[1]))
        if abs(share) >= SHOWN
    ]


def _lines(live: bool) -> Iterator[str]:
    """The input's lines."""
    while True:
        try:
            line = input("> ") if live else sys.stdin.readline()
        except (EOFError, KeyboardInterrupt):
            show("")
            return
        if (not live and not line) or line.strip() in ("/quit", "/exit"):
            return
        yield line.strip()


def _existing(name: str) -> Path:
    path = home(name)
    if not name or not path.is_file():
        raise FcitError(f"{name or '/image'}: no such image file")
    return path
