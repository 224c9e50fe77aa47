"""The look of figures: colours and markers of the methods, one style, deterministic PNG and SVG."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fcit.files import written_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = {
    "disco": ("#3f78b5", "o"),
    "disco_lda": ("#1b3a63", "8"),
    "finetune": ("#e4694f", "v"),
    "lwf": ("#56b4d9", "<"),
    "ewc": ("#2f9e6e", ">"),
    "olora": ("#a4508b", "P"),
    "moelora": ("#c9a227", "X"),
    "l2p": ("#8a6d3b", "p"),
    "hide": ("#7a70c8", "h"),
    "ffa_lora": ("#8fae3c", "d"),
    "fedsa_lora": ("#d98bb0", "H"),
    "fedex_lora": ("#5b3bd0", "^"),
    "replay": ("#b03060", "D"),
    "fedprotip": ("#4b238e", "s"),
    "zeroshot": ("#98a1ac", "s"),
    "joint": ("#8a929d", "X"),
    "individual": ("#77808c", "D"),
    "individual_central": ("#6b7580", "p"),
    "multitask": ("#5f6874", "^"),
}
"""Colour and marker of every method, the same in every report. Methods that learn have different markers,
and so have the reference points."""

SPARE_COLOURS = ("#3aa6a0", "#b5533c", "#5b8def", "#9c755f")
SPARE_MARKERS = ("P", "X", "*", "<", ">", "p", "h", "d", "8")

PAPER, INK, QUIET, LINE = "#fffffe", "#1d2530", "#626d7a", "#dde2e7"
DARK = {PAPER: "#161b22", INK: "#e4e8ed", QUIET: "#9ba6b3", LINE: "#303843"}
"""The figures' own colours, and what they become on a dark page (data keeps its colours)."""


@contextmanager
def styled() -> Iterator[None]:
    """Draw and save inside this, or decorate what draws: matplotlib's own settings stay as they are."""
    from matplotlib.style import context

    with context(Path(__file__).with_name("figures.mplstyle"), after_reset=True):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that pyplot does not know."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def legend(figure: Figure, axes: Axes) -> None:
    """A legend above the axes, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        shown = [shorten(label, 40) for label in labels]
        figure.legend(handles, shown, loc="outside upper left", ncols=min(len(labels), 4))


def shorten(text: str, most: int = 26) -> str:
    """A label cut to a length that leaves room for the data."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def to_svg(figure: Figure) -> str:
    """The figure as SVG: the same figure gives the same text, with no date and no author in it."""
    out = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with styled():
        figure.savefig(out, format="svg", metadata=nothing)
    figure.set_layout_engine("none")  # laid out now; the PNG need not work it out again
    lines = "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
    return re.sub(r"(?<![\d.])([1-9]\d*\.\d\d)\d+", r"\1", lines)  # two decimals make it small


def to_dark(svg: str) -> str:
    """The same figure for a dark page."""
    for light, dark in DARK.items():
        svg = svg.replace(light, dark)
    return svg


def data_uri(svg: str) -> str:
    """What a page embeds of an SVG."""
    body = svg[svg.index("<svg") :]
    return "data:image/svg+xml;base64," + base64.b64encode(body.encode()).decode()


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, whole or not at all; the same figure gives the same bytes."""
    with styled(), written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=160, metadata={"Software": None})
