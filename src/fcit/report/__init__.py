"""Reports on finished and unfinished runs, made from their folders alone.

`run_data` reads a folder, and `groups` puts comparable runs together. `page` writes the HTML page, with
the figures of `gallery` and the tables of `result_tables` and `significance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fcit.files import write_text
from fcit.types import FcitError

__all__ = ["overview", "save_partition", "write"]


def write(runs: Sequence[Path], out: Path, root: Path | None = None) -> Path:
    """Write a report of run folders (or folders of such) into `out`; return the path of its index.html.

    The page is self-contained. Beside it are all figures as PNG and SVG (`figures/`) and the tables as
    Markdown, CSV and LaTeX (`table`: one per setting; `paper`: all settings in one; `significance`: which
    methods differ significantly). root: the data folder that has the images of runs whose configuration
    names none. Raises FcitError naming the folder or file at fault.
    """
    from fcit.report import page

    return page.write(runs, out, root)


def overview(runs: Sequence[Path]) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """The numbers a terminal shows, {title: [(method, values)]}: Last, Avg, forgetting, zero-shot,
    chance, routing; mean and spread over seeds, "" where there is none.

    Raises FcitError naming the folder or file at fault.
    """
    from fcit.report.groups import group_runs
    from fcit.report.results import COLUMNS, method_lines
    from fcit.report.run_data import read_runs

    fields = ("last", "avg", "forgetting", "zero_shot", "chance", "routing")
    columns = [column for field in fields for column in COLUMNS if column.field == field]
    return {
        group.title: [
            (
                line.entry.name,
                tuple(line.text(column) if line.values[column.field] else "" for column in columns),
            )
            for line in method_lines(group)
        ]
        for group in group_runs(read_runs(runs))
    }


def save_partition(counts: Mapping[str, Sequence[int]], path: Path) -> None:
    """Draw how many samples of each dataset every client holds, {dataset: [count per client]}, into a
    .png or .svg file.

    Raises FcitError naming the file when it ends otherwise.
    """
    from fcit.report import heatmaps, style

    if path.suffix not in (".png", ".svg"):
        raise FcitError(f"{path}: a picture ends with .png or .svg; give such a name")
    figure = heatmaps.partition(counts)
    if path.suffix == ".svg":
        write_text(path, style.to_svg(figure))
    else:
        style.save_png(figure, path)
