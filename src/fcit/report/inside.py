"""Figures of what happens inside: subspaces, activation, clients' data, traffic and time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

from fcit.report import paint
from fcit.report.group import Entry, Group
from fcit.report.read import Run, predictions

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


def similarity(run: Run) -> Figure:
    """Cosine similarities of the subspaces' identity tokens. The run must have tokens."""
    import numpy as np

    assert run.tokens is not None
    values = np.array(run.tokens.values, dtype=np.float64)
    both = run.setting_of("method", "token") == "both" and values.shape[1] % 2 == 0
    halves = np.split(values, 2, axis=1) if both else [values]
    cosines = np.mean([_cosines(half) for half in halves], axis=0)
    names = [subspace_label(run, str(k)) for k in range(len(values))]
    low = min(0.0, float(np.min(cosines, initial=0.0)))
    cells = [[float(one) for one in row] for row in cosines]
    with paint.style():
        return paint.heat_map(
            cells, names, names, paint.LIKENESS, (low, 1.0), ".2f", "cosine", "subspace", "subspace"
        )


def activation(run: Run, shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Mean activation factors: of every subspace (x) on the prompts of every dataset (y)."""
    names = sorted({name for row in shares.values() for name in row}, key=_natural)
    cells = [[row.get(name) for name in names] for row in shares.values()]
    known = [cell for row in cells for cell in row if cell is not None]
    low, high = min(0.0, *known), max(1.0, *known)
    labels = [subspace_label(run, name) for name in names]
    with paint.style():
        return paint.heat_map(
            cells,
            labels,
            list(shares),
            paint.SHARE,
            (low, high),
            ".2f",
            "mean activation factor",
            "subspace (what trained it)",
            "test dataset",
        )


def activation_means(run: Run) -> dict[str, dict[str, float]]:
    """{dataset: {subspace: mean activation factor}} over the final stage's predictions."""
    result: dict[str, dict[str, float]] = {}
    for dataset in run.datasets:
        rows = [one.activation for one in predictions(run, dataset) if one.activation]
        names = sorted({name for row in rows for name in row}, key=_natural)
        if rows:
            result[dataset] = {name: fmean(row.get(name, 0.0) for row in rows) for name in names}
    return result


def partition_figure(counts: Mapping[str, Sequence[int]]) -> Figure:
    """How many samples of each dataset (y) each client (x) holds: {dataset: [count per client]}."""
    clients = max((len(row) for row in counts.values()), default=0)
    cells = [[float(count) for count in row] for row in counts.values()]
    cells = [row + [None] * (clients - len(row)) for row in cells]
    most = max((cell for row in cells for cell in row if cell is not None), default=1.0)
    crowded = clients > 16
    names = [str(client) if not crowded or client % 5 == 0 else "" for client in range(clients)]
    with paint.style():
        figure = paint.heat_map(
            cells,
            names,
            list(counts),
            paint.COUNT,
            (0.0, max(most, 1.0)),
            ".0f",
            "training samples",
            "client",
            "dataset",
            values=not crowded,
        )
        for label in figure.axes[0].get_xticklabels():
            label.set(rotation=0, ha="center")
        width = min(max(0.16 * clients, 4.0) + 2.2, 11.0) if crowded else 0.5 * clients + 2.6
        figure.set_size_inches(max(width, 4.0), 1.3 + 0.32 * len(counts))
    return figure


def traffic(group: Group) -> Figure:
    """Bytes to and from a client (mean of the round's clients) and seconds, round by round."""
    panels = (
        ("sent to a client", "MB", lambda one: fmean(one.bytes_down or (0,)) / 1e6),
        ("received from a client", "MB", lambda one: fmean(one.bytes_up or (0,)) / 1e6),
        ("time", "seconds a round", lambda one: one.seconds),
    )
    with paint.style():
        figure = paint.sheet(10.4, 3.1)
        boxes = figure.subplots(1, 3)
        logged = [e for e in group.learners or group.entries if e.first.rounds]
        for axes, (title, unit, of) in zip(boxes, panels, strict=True):
            most = max((of(one) for e in logged for one in e.first.rounds), default=0.0)
            for entry in logged:
                values = [of(one) for one in entry.first.rounds]
                single = len(values) == 1
                axes.plot(
                    range(1, len(values) + 1),
                    values,
                    label=entry.label,
                    color=entry.colour,
                    marker=entry.marker if single else None,
                    linewidth=1.6,
                )
            for start in _stage_starts(logged):
                axes.axvline(start, color=paint.LINE, linewidth=0.7, zorder=0)
            axes.set(title=title, xlabel="round", ylabel=unit, ylim=(0, 1.08 * most or 1.0))
            axes.grid(axis="y")
            axes.xaxis.get_major_locator().set_params(integer=True)
        handles, labels = boxes[0].get_legend_handles_labels()
        if labels:
            figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 6))
    return figure


def subspace_label(run: Run, name: str) -> str:
    """A subspace's name and the tasks that trained it, the most frequent first (from the log)."""
    tasks = Counter(
        task
        for one in run.rounds
        for task, subspace in zip(one.tasks, one.subspaces, strict=False)
        if subspace == name
    )
    made = ", ".join(task for task, _ in tasks.most_common())
    return f"{name} {made}" if made and made != name else name


def _stage_starts(entries: Sequence[Entry]) -> list[float]:
    """Where a new stage begins on the axis of rounds."""
    rounds = entries[0].first.rounds if entries else ()
    pairs = pairwise(rounds)
    return [at + 1.5 for at, (a, b) in enumerate(pairs) if a.stage != b.stage]


def _cosines(rows: np.ndarray) -> np.ndarray:
    import numpy as np

    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.maximum(lengths, 1e-12)
    return unit @ unit.T


def _natural(name: str) -> tuple[object, ...]:
    """Sorts "2" before "10"."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts if p)
