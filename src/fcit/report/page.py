"""Builds the HTML page, the figures' files and the tables' files from groups of runs."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcit.files import write_text
from fcit.report import paint, plots, sheet, significance, tables, trust
from fcit.report.examples import Example, examples
from fcit.report.group import Entry, Group, flat, group_runs
from fcit.report.paper import papers
from fcit.report.plots import Plot
from fcit.report.read import Run, read_runs
from fcit.types import FcitError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    level: frozenset[str]
    compared: sheet.Sheet | None
    hidden: int
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
    """Write index.html, figures/*.png|svg and {table,paper,significance}.md|csv|tex into `out`; return
    the page."""
    groups = group_runs(read_runs(paths))
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise FcitError(f"{out}: is a file; give a folder for the report")
    tests = {one.slug: found for one in groups if (found := significance.significance(one))}
    compared = {
        one.slug: significance.sheet(one, tests[one.slug]) for one in groups if one.slug in tests
    }
    sections = [
        _section(
            group,
            out / "figures",
            f"{group.slug}-" if len(groups) > 1 else "",
            root,
            tests[group.slug].level if group.slug in tests else frozenset(),
            compared.get(group.slug),
        )
        for group in groups
    ]
    both = papers(groups, tests)
    write_text(out / "table.md", tables.markdown(groups))
    write_text(out / "table.csv", tables.to_csv(groups))
    write_text(out / "table.tex", tables.latex(groups))
    for name, sheets in (("paper", both), ("significance", list(compared.values()))):
        write_text(out / f"{name}.md", sheet.markdown(sheets))
        write_text(out / f"{name}.csv", sheet.to_csv(sheets))
        write_text(out / f"{name}.tex", sheet.latex(sheets))
    page = out / "index.html"
    write_text(page, _render(sections, [one for one in both if len(one.spans) > 1]))
    return page


def _section(
    group: Group,
    folder: Path,
    prefix: str,
    root: Path | None,
    level: frozenset[str],
    compared: sheet.Sheet | None,
) -> Section:
    rows = tables.table(group)
    drawn = group.drawn

    def plot(name: str, title: str, caption: str, draw: Callable[[], Figure]) -> Plot:
        return _plot(folder, prefix + name, title, caption, draw())

    several = any(len(entry.runs) > 1 for entry in group.entries)
    runs = [run for entry in group.entries for run in entry.runs]
    mean = " Mean over seeds; the band or line is ± one standard deviation." if several else ""
    return Section(
        group=group,
        heading=tables.heading(group),
        lede=_lede(group, rows),
        columns=tables.columns(rows),
        rows=rows,
        level=level,
        compared=compared,
        hidden=len(group.entries) - len(drawn.entries),
        accuracy=plots.accuracy(drawn, plot, mean),
        maps=plots.maps(drawn, plot),
        inner=plots.inner(drawn, plot),
        clients=plots.clients(drawn, plot),
        traffic=plots.traffic(drawn, plot),
        costs=[_cost(entry) for entry in group.entries if entry.first.rounds],
        privacy=[trust.spent(run) for run in runs if run.privacy],
        troubles=trust.troubles(runs),
        examples=examples(drawn, root),
    )


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


def _lede(group: Group, rows: Sequence[tables.Row]) -> str:
    """One sentence: who keeps the most, and by how much."""
    competing = {entry.slug for entry in group.contest}
    done = [
        (value.mean, row.entry.label)
        for row in rows
        if row.entry.slug in competing and (value := row.values["last"])
    ]
    done.sort(reverse=True)
    if not done:
        return ""
    (top, label), *others = done
    text = f"{label} ends at {top:.2f} % over all datasets"
    return (
        f"{text}, {top - others[0][0]:.2f} points above {others[0][1]}." if others else text + "."
    )


def _plot(folder: Path, name: str, title: str, caption: str, figure: Figure) -> Plot:
    svg = paint.to_svg(figure)
    write_text(folder / f"{name}.svg", svg)
    paint.to_png(figure, folder / f"{name}.png")
    width = round(float(figure.get_size_inches()[0]) * 96)
    return Plot(name, title, caption, _uri(svg), _uri(paint.to_dark(svg)), width)


def _uri(svg: str) -> str:
    body = svg[svg.index("<svg") :]
    return "data:image/svg+xml;base64," + base64.b64encode(body.encode()).decode()


def _render(sections: Sequence[Section], both: Sequence[sheet.Sheet]) -> str:
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
        "papers": both,
        "mark": sheet.MARK,
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
