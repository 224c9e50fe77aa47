"""Builds the HTML page, the figures' files and the tables' files from groups of runs."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcit.files import write_text
from fcit.report import figures, inside, paint, tables, trust
from fcit.report.examples import Example, examples
from fcit.report.group import Entry, Group, flat, group_runs
from fcit.report.read import Run, read_runs
from fcit.types import FcitError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plot:
    """A figure of the page: SVG data URIs for light and dark pages, and its width in CSS pixels."""

    name: str
    title: str
    caption: str
    light: str
    dark: str
    width: int
    entry: Entry | None = None


@dataclass(frozen=True)
class Cost:
    """What a run sent and took in all."""

    entry: Entry
    rounds: int
    down: float
    up: float
    each: float
    minutes: float


@dataclass(frozen=True)
class Section:
    """All the page says about one group."""

    group: Group
    heading: str
    lede: str
    columns: Sequence[tables.Column]
    rows: Sequence[tables.Row]
    accuracy: Sequence[Plot]
    maps: Sequence[Plot]
    inner: Sequence[Plot]
    clients: Sequence[Plot]
    traffic: Sequence[Plot]
    costs: Sequence[Cost]
    privacy: Sequence[str]
    troubles: Sequence[trust.Trouble]
    examples: dict[str, list[Example]]


def write(paths: Sequence[Path], out: Path, root: Path | None = None) -> Path:
    """Write index.html, figures/*.png|svg and table.md|csv|tex into `out`; return the page."""
    groups = group_runs(read_runs(paths))
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise FcitError(f"{out}: is a file; give a folder for the report")
    sections = [
        _section(group, out / "figures", f"{group.slug}-" if len(groups) > 1 else "", root)
        for group in groups
    ]
    write_text(out / "table.md", tables.markdown(groups))
    write_text(out / "table.csv", tables.to_csv(groups))
    write_text(out / "table.tex", tables.latex(groups))
    page = out / "index.html"
    write_text(page, _render(sections))
    return page


def _section(group: Group, folder: Path, prefix: str, root: Path | None) -> Section:
    rows = tables.table(group)

    def plot(name: str, title: str, caption: str, draw: Callable[[], Figure]) -> Plot:
        return _plot(folder, prefix + name, title, caption, draw())

    several = any(len(entry.runs) > 1 for entry in group.entries)
    runs = [run for entry in group.entries for run in entry.runs]
    mean = " Mean over seeds; the band or line is ± one standard deviation." if several else ""
    return Section(
        group=group,
        heading=tables.heading(group),
        lede=_lede(rows),
        columns=tables.columns(rows),
        rows=rows,
        accuracy=_accuracy(group, plot, mean),
        maps=_maps(group, plot),
        inner=_inner(group, plot),
        clients=_clients(group, plot),
        traffic=_traffic(group, plot),
        costs=[_cost(entry) for entry in group.entries if entry.first.rounds],
        privacy=[trust.spent(run) for run in runs if run.privacy],
        troubles=trust.troubles(runs),
        examples=examples(group, root),
    )


Draw = Callable[[str, str, str, Callable[[], "Figure"]], Plot]


def _accuracy(group: Group, plot: Draw, mean: str) -> list[Plot]:
    plots: list[Plot] = []
    if len(group.pilot.matrix) > 1:
        text = (
            "Mean accuracy over all datasets seen so far, after every stage. A line that stays up "
            "remembers; dashed lines are points of reference over the same datasets."
        )
        plots.append(
            plot("curves", "Accuracy as stages arrive", text + mean, lambda: figures.curves(group))
        )
    text = (
        "Every dataset after the final stage, one mark a method. Marks near the upright bar of "
        "chance mean that nothing is left of what was learned, or that nothing was."
    )
    plots.append(
        plot("final", "Where each dataset ends", text, lambda: figures.final_accuracy(group))
    )
    if any(run.forgetting for entry in group.learners for run in entry.runs):
        text = "Best minus last accuracy, in points of percent: short bars forget little." + mean
        plots.append(
            plot("forgetting", "What was forgotten", text, lambda: figures.forgetting(group))
        )
    return plots


def _maps(group: Group, plot: Draw) -> list[Plot]:
    plots: list[Plot] = []
    for entry in group.entries:
        if entry.matrix:
            text = (
                "Read down a column: a dataset's accuracy from the stage that taught it to the end."
            )
            if len(entry.matrix) == 1:
                text = "One row: this point of reference is measured once, after all training."
            text += _whose(entry, mean=True)
            drawn = plot(
                f"accuracy-{entry.slug}",
                f"{entry.label}: stage by dataset",
                text,
                lambda entry=entry: figures.accuracy_heat_map(entry),
            )
            plots.append(replace(drawn, entry=entry))
    return plots


def _inner(group: Group, plot: Draw) -> list[Plot]:
    plots: list[Plot] = []
    for entry in group.entries:
        run = entry.first
        if run.tokens is not None and run.tokens.values:
            text = (
                "Cosine between the identity tokens of every two subspaces, labelled with what "
                "trained them. Pale off the diagonal: the subspaces are easy to tell apart."
            )
            drawn = plot(
                f"tokens-{entry.slug}",
                f"{entry.label}: identity tokens",
                text + _whose(entry),
                lambda run=run: inside.similarity(run),
            )
            plots.append(replace(drawn, entry=entry))
        shares = {} if run.reference else inside.activation_means(run)
        if len({name for row in shares.values() for name in row}) > 1:
            text = (
                "Mean activation factor of each subspace on each dataset's test prompts after the "
                "final stage. One dark cell a row: prompts find the subspace of their own task."
            )
            drawn = plot(
                f"activation-{entry.slug}",
                f"{entry.label}: who answers what",
                text + _whose(entry),
                lambda run=run, shares=shares: inside.activation(run, shares),
            )
            plots.append(replace(drawn, entry=entry))
    return plots


def _clients(group: Group, plot: Draw) -> list[Plot]:
    known = [e for e in (*group.learners, *group.entries) if e.first.partition]
    if not known:
        return []
    text = (
        "Training samples of every dataset that each client holds: the smaller β, the more unequal."
    )
    text += f" Taken from {known[0].label}, seed {known[0].first.seed}."
    counts = {name: list(row) for name, row in known[0].first.partition.items()}
    draw = lambda: inside.partition_figure(counts)  # noqa: E731
    return [plot("clients", "Who holds how much", text, draw)]


def _traffic(group: Group, plot: Draw) -> list[Plot]:
    if not any(entry.first.rounds for entry in group.entries):
        return []
    text = "Mean megabytes per client and round, and seconds a round; upright lines begin a stage."
    text += " Each method's first seed." if any(len(e.runs) > 1 for e in group.entries) else ""
    return [plot("traffic", "Bytes and seconds", text, lambda: inside.traffic(group))]


def _cost(entry: Entry) -> Cost:
    rounds = entry.first.rounds
    down, up = (sum(sum(part) for part in parts) for parts in _bytes(entry.first))
    turns = sum(len(one.clients) for one in rounds)
    return Cost(
        entry=entry,
        rounds=len(rounds),
        down=down / 1e6,
        up=up / 1e6,
        each=up / 1e6 / turns if turns else 0.0,
        minutes=sum(one.seconds for one in rounds) / 60,
    )


def _bytes(run: Run) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    return [one.bytes_down for one in run.rounds], [one.bytes_up for one in run.rounds]


def _lede(rows: Sequence[tables.Row]) -> str:
    """One sentence: who keeps the most, and by how much."""
    done = [
        (value.mean, row.entry.label)
        for row in rows
        if not row.entry.reference and not row.entry.unfinished and (value := row.values["last"])
    ]
    done.sort(reverse=True)
    if not done:
        return ""
    (top, label), *others = done
    text = f"{label} ends at {top:.2f} % over all datasets"
    return (
        f"{text}, {top - others[0][0]:.2f} points above {others[0][1]}." if others else text + "."
    )


def _whose(entry: Entry, mean: bool = False) -> str:
    if len(entry.runs) == 1:
        return " Unfinished run." if entry.unfinished else ""
    seeds = ", ".join(str(run.seed) for run in entry.runs)
    return f" Mean over seeds {seeds}." if mean else f" Seed {entry.first.seed}."


def _plot(folder: Path, name: str, title: str, caption: str, figure: Figure) -> Plot:
    svg = paint.to_svg(figure)
    write_text(folder / f"{name}.svg", svg)
    paint.to_png(figure, folder / f"{name}.png")
    width = round(float(figure.get_size_inches()[0]) * 96)
    return Plot(name, title, caption, _uri(svg), _uri(paint.to_dark(svg)), width)


def _uri(svg: str) -> str:
    body = svg[svg.index("<svg") :]
    return "data:image/svg+xml;base64," + base64.b64encode(body.encode()).decode()


def _render(sections: Sequence[Section]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(cell=tables.cell, state=tables.state, seeds=tables.seeds)
    runs = [(entry, run) for part in sections for entry in part.group.entries for run in entry.runs]
    context: dict[str, Any] = {
        "sections": sections,
        "runs": [(entry, run, _configuration(run)) for entry, run in runs],
        "versions": _versions([run for _, run in runs]),
    }
    return environment.get_template("page.html").render(context)


def _configuration(run: Run) -> list[tuple[str, str]]:
    shown = flat({key: value for key, value in run.config.items() if key != "versions"})
    return [(key, str(value)) for key, value in shown.items()]


def _versions(runs: Sequence[Run]) -> list[str]:
    """What the runs were made with: one line for each set of versions."""
    lines = [
        " · ".join(f"{key} {value}" for key, value in flat(run.config.get("versions", {})).items())
        for run in runs
    ]
    return [line for line in dict.fromkeys(lines) if line]
