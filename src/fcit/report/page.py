"""Builds the HTML page, the figures' files and the tables' files from groups of runs."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fcit.files import write_text
from fcit.report import gallery, style
from fcit.report.examples import Example, examples
from fcit.report.gallery import Picture
from fcit.report.groups import Entry, Group, flat, group_runs
from fcit.report.result_tables import cost_table, paper_tables, setting_table, settings_csv
from fcit.report.results import Column, MethodLine, columns, method_lines
from fcit.report.run_data import RunData, read_runs
from fcit.report.significance import Tests, significance, significance_table
from fcit.report.tables import MARK, Table, to_csv, to_latex, to_markdown
from fcit.types import FcitError


@dataclass(frozen=True)
class Embedded:
    """A picture as it stands in the page."""

    picture: Picture
    name: str
    """Of its files, without the ending."""
    light: str
    dark: str
    """Its SVG as data URIs, for light and dark pages."""
    width: int
    """In CSS pixels."""


@dataclass(frozen=True)
class Section:
    """All the page says about one group."""

    group: Group
    lede: str
    columns: Sequence[Column]
    lines: Sequence[MethodLine]
    level: frozenset[str]
    """Labels of the methods that are not significantly below the best."""
    comparisons: Table | None
    hidden: int
    """How many entries the figures leave out."""
    figures: dict[str, list[Embedded]]
    """By the part of the section that shows them."""
    costs: Table
    privacy: Sequence[str]
    faults: Sequence[tuple[str, int, int, str]]
    """The run's name, stage and round from 1, and what happened."""
    examples: dict[str, list[Example]]


def write(paths: Sequence[Path], out: Path, root: Path | None = None) -> Path:
    """Write index.html, figures/*.png|svg and {table,paper,significance}.md|csv|tex into `out`; return
    the page."""
    groups = group_runs(read_runs(paths))
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise FcitError(f"{out}: is a file; give a folder for the report")
    tests = {group.slug: found for group in groups if (found := significance(group))}
    comparisons = {
        group.slug: table
        for group in groups
        if group.slug in tests and (table := significance_table(group, tests[group.slug])).lines
    }
    sections = [
        _section(
            group,
            out / "figures",
            f"{group.slug}-" if len(groups) > 1 else "",
            root,
            tests.get(group.slug),
            comparisons.get(group.slug),
        )
        for group in groups
    ]
    papers = paper_tables(groups, tests)
    settings = [setting_table(group) for group in groups]
    tables = {"table": settings, "paper": papers, "significance": list(comparisons.values())}
    for name, parts in tables.items():
        write_text(out / f"{name}.md", to_markdown(parts))
        write_text(out / f"{name}.csv", settings_csv(groups) if name == "table" else to_csv(parts))
        write_text(out / f"{name}.tex", to_latex(parts))
    page = out / "index.html"
    write_text(page, _render(sections, [table for table in papers if len(table.spans) > 1]))
    return page


def _section(
    group: Group,
    folder: Path,
    prefix: str,
    root: Path | None,
    tests: Tests | None,
    comparisons: Table | None,
) -> Section:
    lines, shown = method_lines(group), group.for_figures
    runs = [run for entry in group.entries for run in entry.runs]

    def embedded(pictures: Iterable[Picture]) -> list[Embedded]:
        return [_embed(folder, prefix + picture.name, picture) for picture in pictures]

    return Section(
        group=group,
        lede=_lede(lines, group.contest),
        columns=columns(lines),
        lines=lines,
        level=tests.level if tests else frozenset(),
        comparisons=comparisons,
        hidden=len(group.entries) - len(shown.entries),
        figures={
            "accuracy": embedded(gallery.accuracy(shown)),
            "maps": embedded(gallery.stage_by_stage(shown)),
            "inner": embedded(gallery.subspaces(shown)),
            "clients": embedded(gallery.clients(shown)),
        },
        costs=cost_table(group),
        privacy=[_epsilon(run) for run in runs if run.privacy],
        faults=_faults(runs),
        examples=examples(shown, root),
    )


def _lede(lines: Sequence[MethodLine], contest: Sequence[Entry]) -> str:
    """One sentence: who ends highest, and by how much."""
    done = [
        (value.mean, line.entry.label)
        for line in lines
        if line.entry in contest and (value := line.values["last"])
    ]
    done.sort(reverse=True)
    if not done:
        return ""
    (top, label), *others = done
    text = f"{label} ends at {top:.2f} % over all datasets"
    if not others:
        return f"{text}."
    return f"{text}, {top - others[0][0]:.2f} points above {others[0][1]}."


def _epsilon(run: RunData) -> str:
    """What a run with privacy spent."""

    def shown(key: str) -> str:
        value = run.privacy.get(key)
        return "unbounded" if value is None else f"{value:.2f}"

    return (
        f"{run.path.name}: ε = {shown('epsilon')} at δ = {run.privacy['delta']:g} "
        f"(updates {shown('epsilon_updates')}, identity tokens {shown('epsilon_tokens')}). "
        f"It does not cover: {', '.join(run.privacy.get('uncovered', ['the log']))}."
    )


def _faults(runs: Sequence[RunData]) -> list[tuple[str, int, int, str]]:
    """All that went wrong with clients, and every time that the server fell back to another rule."""
    return [
        (run.path.name, row.stage, row.round, text)
        for run in runs
        for row in run.rounds
        for text in (*(f"client {f.client}, {f.kind}: {f.detail}" for f in row.faults), *row.notes)
    ]


def _embed(folder: Path, name: str, picture: Picture) -> Embedded:
    """Write a picture's files, and make of it what the page embeds."""
    svg = style.to_svg(picture.figure)
    write_text(folder / f"{name}.svg", svg)
    style.save_png(picture.figure, folder / f"{name}.png")
    width = round(float(picture.figure.get_size_inches()[0]) * 96)
    return Embedded(picture, name, _data_uri(svg), _data_uri(style.to_dark(svg)), width)


def _data_uri(svg: str) -> str:
    body = svg[svg.index("<svg") :]
    return "data:image/svg+xml;base64," + base64.b64encode(body.encode()).decode()


def _render(sections: Sequence[Section], papers: Sequence[Table]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = [
        (entry, run, flat({key: value for key, value in run.config.items() if key != "versions"}))
        for section in sections
        for entry in section.group.entries
        for run in entry.runs
    ]
    made_with = [
        " · ".join(f"{key} {value}" for key, value in flat(run.config.get("versions", {})).items())
        for _, run, _ in runs
    ]
    return environment.get_template("page.html").render(
        sections=sections,
        papers=papers,
        mark=MARK,
        runs=runs,
        versions=[line for line in dict.fromkeys(made_with) if line],
    )
