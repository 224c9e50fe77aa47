"""How figures look: one calm style, heat maps with their values, and deterministic PNG and SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcit.files import written_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

PAPER, INK, QUIET, LINE = "#fffffe", "#1d2530", "#626d7a", "#dde2e7"
DARK = {PAPER: "#161b22", INK: "#e4e8ed", QUIET: "#9ba6b3", LINE: "#303843"}
"""The figures' own colours, and what they become on a dark page (data keeps its colours)."""

_RC = {
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": "none",
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": INK,
    "lines.linewidth": 2.0,
    "lines.markersize": 5.5,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.hashsalt": "fcit",
    "svg.fonttype": "path",
}

ACCURACY = ("#f1f5f9", "#bcd3e6", "#6ea3cc", "#2f6fa8", "#123f6d")
LIKENESS = ("#f6f4f9", "#d5cbe5", "#a48cc6", "#6f4f9f", "#3d2468")
SHARE = ("#f1f7f5", "#b7dcd0", "#66b59f", "#2a8570", "#0d4a3e")
COUNT = ("#faf6ee", "#f0d9ab", "#dda95a", "#b0742a", "#6b430f")


@contextmanager
def style() -> Iterator[None]:
    """Draw and save inside this: the style holds for the `with` block only."""
    from matplotlib import rc_context, rcParamsDefault

    plain = {key: value for key, value in rcParamsDefault.items() if not key.startswith("backend")}
    looks: dict[Any, Any] = {**plain, **_RC}
    with rc_context(looks):
        yield


def sheet(width: float, height: float) -> Figure:
    """An empty figure of so many inches, without global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def heat_map(
    cells: Sequence[Sequence[float | None]],
    columns: Sequence[str],
    rows: Sequence[str],
    ramp: Sequence[str],
    limits: tuple[float, float],
    form: str,
    unit: str,
    x_name: str,
    y_name: str,
    values: bool = True,
) -> Figure:
    """A labelled heat map, the first row on top, values printed in the cells; None stays blank."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("ramp", list(ramp), N=64)
    wide = 0.47 * len(columns) + 1.2 + 0.065 * max([len(row) for row in rows], default=0)
    high = (0.34 if values else 0.2) * max(len(rows), 1) + 1.0
    high += 0.055 * max([len(column) for column in columns], default=0)
    figure = sheet(max(wide, 3.4), max(high, 2.0))
    axes = figure.add_subplot()
    _cells(axes, cells, colours, limits, form if values else "")
    axes.set_xticks(range(len(columns)), [short(one) for one in columns])
    for label in axes.get_xticklabels():
        label.set(rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), [short(one) for one in rows])
    axes.set(xlabel=x_name, ylabel=y_name)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _scale(figure, axes, colours, limits, unit)
    return figure


def _cells(
    axes: Axes,
    cells: Sequence[Sequence[float | None]],
    colours: Colormap,
    limits: tuple[float, float],
    form: str,
) -> None:
    import numpy as np

    known = [[np.nan if cell is None else cell for cell in row] for row in cells]
    grid = np.ma.masked_invalid(np.array(known, dtype=float))
    if grid.size:
        axes.pcolormesh(
            np.arange(grid.shape[1] + 1) - 0.5,
            np.arange(grid.shape[0] + 1) - 0.5,
            grid,
            cmap=colours,
            vmin=limits[0],
            vmax=limits[1],
            edgecolors=PAPER,
            linewidth=1.2,
        )
    axes.set_ylim(max(len(cells), 1) - 0.5, -0.5)
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            if cell is not None and form:
                share = (cell - limits[0]) / ((limits[1] - limits[0]) or 1.0)
                ink = _readable(colours(min(max(share, 0.0), 1.0)))
                text = format(cell, form)
                axes.text(x, y, text, ha="center", va="center", color=ink, fontsize=8)


def _readable(ground: Sequence[float]) -> str:
    """Black or white, whichever stands out more (relative luminance, WCAG 2)."""
    red, green, blue = (float(part) ** 2.2 for part in ground[:3])
    return "#ffffff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.24 else "#17212c"


def _scale(
    figure: Figure, axes: Axes, colours: Colormap, limits: tuple[float, float], unit: str
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    marks = ScalarMappable(Normalize(*limits), colours)
    bar = figure.colorbar(marks, ax=axes, fraction=0.05, pad=0.015, aspect=24)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.solids.set_rasterized(False)  # pyright: ignore[reportOptionalMemberAccess]
    bar.solids.set_edgecolor("face")  # pyright: ignore[reportOptionalMemberAccess]
    bar.set_label(unit, color=QUIET, fontsize=8.5)
    bar.ax.tick_params(length=0, labelsize=8)


def legend(figure: Figure, axes: Axes) -> None:
    """A legend above the axes, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = min(len(labels), 4)
        shown = [short(label, 40) for label in labels]
        figure.legend(handles, shown, loc="outside upper left", ncols=columns)


def short(text: str, most: int = 26) -> str:
    """A label cut to a length that leaves room for the data."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def to_svg(figure: Figure) -> str:
    """The figure as SVG: the same figure gives the same text, with no date and no author in it."""
    out = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with style():
        figure.savefig(out, format="svg", metadata=nothing)
    figure.set_layout_engine("none")  # laid out now; the PNG need not work it out again
    short_lines = "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
    return re.sub(r"(?<![\d.])([1-9]\d*\.\d\d)\d+", r"\1", short_lines)


def to_dark(svg: str) -> str:
    """The same figure for a dark page."""
    for light, dark in DARK.items():
        svg = svg.replace(light, dark)
    return svg


def to_png(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, whole or not at all; the same figure gives the same bytes."""
    with style(), written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=160, metadata={"Software": None})
