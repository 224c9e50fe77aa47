"""Builds the HTML page, the figures' files and the tables' files from groups of runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fcit.files import write_text
from fcit.recipe.keys import flat
from fcit.report import gallery, style
from fcit.report.examples import Example, examples
from fcit.report.gallery import Picture
from fcit.report.groups import Entry, Group, group_runs
from fcit.report.result_tables import cost_table, paper_tables, setting_table, settings_csv
from fcit.report.results import Column, MethodLine, columns, method_lines
from fcit.report.run_data import RunData, read_runs
from fcit.report.significance import Tests, significance, significance_table
from fcit.report.tables import MARK, Table, to_csv, to_latex, to_markdown
from fcit.types import FcitError


@dataclass(frozen=True)
class Section:
    """All the page says about one group."""

    group: Group
    lede: str
    columns: Sequence[Column]
    lines: Sequence[MethodLine]
    tests: Tests | None
    comparisons: Table | None
    hidden: int
    """How many entries the figures leave out."""
    figures: dict[str, list[Picture]]
    """By the part of the section that shows them."""
    costs: Table
    privacy: Sequence[str]
    faults: Sequence[tuple[str, int, int, str]]
    """The run's name, stage and round from 1, and what happened."""
    examples: dict[str, list[Example]]


def write(
    paths: Sequence[Path], out: Path, root: Path | None = None, with_examples: bool = True
) -> Path:
    """Write a report of run folders (or folders of such) into `out`; return the path of its index.html.

    The page is self-contained. Beside it are all figures as PNG and SVG (`figures/`) and the tables as
    Markdown, CSV and LaTeX (`table`: one per setting; `paper`: all settings in one; `significance`: which
    methods differ significantly). root: the data folder that has the images of runs whose configuration
    names none. with_examples: whether the page shows test samples with their images, prompts and answers.
    Raises FcitError naming the folder or file at fault.
    """
    groups = group_runs(read_runs(paths))
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise FcitError(f"{out}: is a file; give a folder for the report")
    figures = out / "figures"
    sections = [
        _section(group, figures, f"{group.slug}-" if len(groups) > 1 else "", root, with_examples)
        for group in groups
    ]
    papers = paper_tables(groups, {part.group.slug: part.tests for part in sections if part.tests})
    tables = {
        "table": [setting_table(group) for group in groups],
        "paper": papers,
        "significance": [part.comparisons for part in sections if part.comparisons],
    }
    for name, parts in tables.items():
        write_text(out / f"{name}.md", to_markdown(parts))
        write_text(out / f"{name}.csv", settings_csv(groups) if name == "table" else to_csv(parts))
        write_text(out / f"{name}.tex", to_latex(parts))
    page = out / "index.html"
    write_text(page, _render(sections, [table for table in papers if len(table.spans) > 1]))
    return page


def _section(
    group: Group, folder: Path, prefix: str, root: Path | None, with_examples: bool
) -> Section:
    """All about a group; the files of its figures are written on the way."""
    lines, shown, tests = method_lines(group), group.for_figures, significance(group)
    compared = significance_table(group, tests) if tests else None
    runs = [run for entry in group.entries for run in entry.runs]

    def saved(pictures: Iterable[Picture]) -> list[Picture]:
        named = [replace(picture, name=prefix + picture.name) for picture in pictures]
        for picture in named:
            write_text(folder / f"{picture.name}.svg", picture.svg)
            style.save_png(picture.figure, folder / f"{picture.name}.png")
        return named

    return Section(
        group=group,
        lede=_lede(lines, group.contest),
        columns=columns(lines),
        lines=lines,
        tests=tests,
        comparisons=compared if compared and compared.lines else None,
        hidden=len(group.entries) - len(shown.entries),
        figures={
            "accuracy": saved(gallery.accuracy(shown)),
            "gap": saved(gallery.taken_apart(group)),
            "maps": saved(gallery.stage_by_stage(shown)),
            "inner": saved(gallery.subspaces(shown)),
            "clients": saved(gallery.clients(shown)),
        },
        costs=cost_table(group),
        privacy=[_epsilon(run) for run in runs if run.privacy],
        faults=_faults(runs),
        examples=examples(shown, root) if with_examples else {},
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
        " · ".join(
            f"{key} {value}"
            for key, value in flat(
                run.config.get("versions", {}) | {"evaluated": run.evaluated}
            ).items()
            if value and key != "method_file"  # one for each method: the lines would be as many
        )
        for _, run, _ in runs
    ]
    return environment.get_template("page.html").render(
        sections=sections,
        papers=papers,
        mark=MARK,
        runs=runs,
        versions=[line for line in dict.fromkeys(made_with) if line],
    )
