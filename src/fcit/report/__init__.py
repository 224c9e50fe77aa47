"""Reports: from run folders alone to one HTML page, its figures and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fcit.files import write_text
from fcit.types import FcitError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fcit.report.tables import Summary

__all__ = ["partition_figure", "save_partition", "summary", "write"]


def write(runs: Sequence[Path], out: Path, root: Path | None = None) -> Path:
    """Write a report of run folders into the folder `out` and return the path of its index.html.

    The page needs nothing but itself; beside it lie every figure as PNG and SVG (`figures/`) and
    the methods' table as Markdown, CSV and LaTeX. `root` is the data folder for the sample
    images of runs whose configuration names none. Raises FcitError naming the folder or file at fault.
    """
    from fcit.report import page

    return page.write(runs, out, root)


def summary(runs: Sequence[Path]) -> list[Summary]:
    """One line of figures per run folder, in the order given (percent; points of forgetting).

    Raises FcitError naming the folder or file at fault.
    """
    from fcit.report.read import read_runs
    from fcit.report.tables import summarise

    return [summarise(run) for run in read_runs(runs)]


def partition_figure(counts: Mapping[str, Sequence[int]]) -> Figure:
    """A heat map of how many samples each client holds: {dataset: [count per client]}."""
    from fcit.report.inside import partition_figure as draw

    return draw(counts)


def save_partition(counts: Mapping[str, Sequence[int]], path: Path) -> None:
    """Draw `partition_figure(counts)` into a .png or .svg file.

    Raises FcitError naming the file when it ends otherwise.
    """
    from fcit.report import paint

    if path.suffix not in (".png", ".svg"):
        raise FcitError(f"{path}: a picture ends with .png or .svg; give such a name")
    figure = partition_figure(counts)
    if path.suffix == ".svg":
        write_text(path, paint.to_svg(figure))
    else:
        paint.to_png(figure, path)
