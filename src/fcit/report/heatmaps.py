"""Heat maps: accuracy by stage, identity tokens, activation factors, clients' data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fcit.files import write_text
from fcit.report.groups import Entry
from fcit.report.run_data import RunData, predictions
from fcit.report.style import PAPER, QUIET, new_figure, save_png, shorten, styled, to_svg
from fcit.rounds.records import trained
from fcit.types import FcitError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

BLUES = ("#f1f5f9", "#bcd3e6", "#6ea3cc", "#2f6fa8", "#123f6d")
PURPLES = ("#f6f4f9", "#d5cbe5", "#a48cc6", "#6f4f9f", "#3d2468")
GREENS = ("#f1f7f5", "#b7dcd0", "#66b59f", "#2a8570", "#0d4a3e")
BROWNS = ("#faf6ee", "#f0d9ab", "#dda95a", "#b0742a", "#6b430f")


@dataclass(frozen=True)
class Scale:
    """What a heat map's colours stand for."""

    colours: Sequence[str]
    low: float
    high: float
    unit: str
    form: str
    """How a value is printed in its cell; "" leaves cells empty."""


def accuracy_by_stage(entry: Entry) -> Figure:
    """Accuracy of every dataset (x) after every stage (y), in percent; mean over seeds."""
    run = entry.first
    stages = [
        f"{at + 1} {run.stages[at] if at < len(run.stages) else ''}"
        for at in range(len(entry.matrix))
    ]
    scale = Scale(BLUES, 0.0, 100.0, "accuracy, %", ".1f")
    return _heat_map(entry.matrix, run.datasets, stages, scale, "dataset", "after stage")


def token_similarity(run: RunData) -> Figure:
    """Cosine similarities of the subspaces' identity tokens. The run must have tokens."""
    import numpy as np

    values = np.array(run.tokens, dtype=np.float64)
    both = run.token_routed and run.token_routed.identity == "both"
    halves = np.split(values, 2, axis=1) if both else [values]
    cosines = np.mean([_cosines(half) for half in halves], axis=0)
    names = [subspace_label(run, str(number)) for number in range(len(values))]
    low = min(0.0, float(np.min(cosines, initial=0.0)))
    cells = [[float(cosine) for cosine in row] for row in cosines]
    scale = Scale(PURPLES, low, 1.0, "cosine", ".2f")
    return _heat_map(cells, names, names, scale, "subspace", "subspace")


def activation(run: RunData, means: Mapping[str, Mapping[str, float]]) -> Figure:
    """Mean activation factors: of every subspace (x) on the prompts of every dataset (y)."""
    names = sorted({name for row in means.values() for name in row}, key=lambda x: (len(x), x))
    cells = [[row.get(name) for name in names] for row in means.values()]
    known = [cell for row in cells for cell in row if cell is not None]
    scale = Scale(GREENS, min(0.0, *known), max(1.0, *known), "mean activation factor", ".2f")
    labels = [subspace_label(run, name) for name in names]
    return _heat_map(
        cells, labels, list(means), scale, "subspace (tasks that trained it)", "test dataset"
    )


def activation_means(run: RunData) -> dict[str, dict[str, float]]:
    """{dataset: {subspace: mean activation factor}} over the final stage's predictions."""
    means: dict[str, dict[str, float]] = {}
    for dataset in run.datasets:
        rows = [row.activation for row in predictions(run, dataset) if row.activation]
        names = sorted({name for row in rows for name in row})
        if rows:
            means[dataset] = {name: fmean(row.get(name, 0.0) for row in rows) for name in names}
    return means


def partition(counts: Mapping[str, Sequence[int]]) -> Figure:
    """How many samples of each dataset (y) each client (x) holds: {dataset: [count per client]}."""
    clients = max((len(row) for row in counts.values()), default=0)
    cells = [[*map(float, row), *[None] * (clients - len(row))] for row in counts.values()]
    most = max((cell for row in cells for cell in row if cell is not None), default=1.0)
    crowded = clients > 16
    names = [str(client) if not crowded or client % 5 == 0 else "" for client in range(clients)]
    scale = Scale(BROWNS, 0.0, max(most, 1.0), "training samples", "" if crowded else ".0f")
    figure = _heat_map(cells, names, list(counts), scale, "client", "dataset")
    for label in figure.axes[0].get_xticklabels():
        label.set(rotation=0, ha="center")
    width = min(max(0.16 * clients, 4.0) + 2.2, 11.0) if crowded else 0.5 * clients + 2.6
    figure.set_size_inches(max(width, 4.0), 1.3 + 0.32 * len(counts))
    return figure


def require_picture(path: Path) -> None:
    """Raise FcitError for a name that does not end as `save_partition` needs it."""
    if path.suffix not in (".png", ".svg"):
        raise FcitError(f"{path}: a picture ends with .png or .svg; give such a name")


def save_partition(counts: Mapping[str, Sequence[int]], path: Path) -> None:
    """Draw `partition` into a .png or .svg file. Raises FcitError when its name ends otherwise."""
    require_picture(path)
    figure = partition(counts)
    if path.suffix == ".svg":
        write_text(path, to_svg(figure))
    else:
        save_png(figure, path)


def subspace_label(run: RunData, name: str) -> str:
    """A subspace's name and the tasks that trained it, the most frequent first (from the log)."""
    tasks = Counter(task for _, _, task, each in trained(run.rounds) if each == name)
    trained_by = ", ".join(task for task, _ in tasks.most_common())
    return f"{name} {trained_by}" if trained_by and trained_by != name else name


@styled()
def _heat_map(
    cells: Sequence[Sequence[float | None]],
    columns: Sequence[str],
    rows: Sequence[str],
    scale: Scale,
    x_name: str,
    y_name: str,
) -> Figure:
    """A labelled heat map, the first row on top; None stays blank."""
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    width = 0.47 * len(columns) + 1.2 + 0.065 * max([len(row) for row in rows], default=0)
    height = (0.34 if scale.form else 0.2) * max(len(rows), 1) + 1.0
    height += 0.055 * max([len(column) for column in columns], default=0)
    figure = new_figure(max(width, 3.4), max(height, 2.0))
    axes = figure.add_subplot()
    grid = np.array(cells, dtype=float, ndmin=2)  # None is nan, which is not drawn
    mesh = axes.pcolormesh(
        np.arange(grid.shape[1] + 1) - 0.5,
        np.arange(grid.shape[0] + 1) - 0.5,
        grid,
        cmap=LinearSegmentedColormap.from_list("ramp", list(scale.colours), N=64),
        vmin=scale.low,
        vmax=scale.high,
        edgecolors=PAPER,
        linewidth=1.2,
    )
    for (y, x), cell in np.ndenumerate(grid):
        if scale.form and not np.isnan(cell):
            text, ink = format(cell, scale.form), _readable_on([*mesh.to_rgba(cell)])
            axes.text(x, y, text, ha="center", va="center", color=ink, fontsize=8)
    names = [shorten(column) for column in columns]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), [shorten(row) for row in rows])
    axes.set(xlabel=x_name, ylabel=y_name, ylim=(max(len(rows), 1) - 0.5, -0.5))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar: Any = figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.015, aspect=24)
    bar.outline.set_visible(False)
    bar.solids.set_rasterized(False)
    bar.solids.set_edgecolor("face")
    bar.set_label(scale.unit, color=QUIET, fontsize=8.5)
    bar.ax.tick_params(length=0, labelsize=8)
    return figure


def _readable_on(background: Sequence[float]) -> str:
    """Black or white, whichever stands out more (relative luminance, WCAG 2)."""
    red, green, blue = (channel**2.2 for channel in background[:3])
    return "#ffffff" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.24 else "#17212c"


def _cosines(rows: np.ndarray) -> np.ndarray:
    import numpy as np

    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.maximum(lengths, 1e-12)
    return unit @ unit.T
