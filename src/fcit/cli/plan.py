"""`fcit plan`: a run's plan as tables, or as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fcit.cli.options import Changes, Recipe
from fcit.watch import Terminal

if TYPE_CHECKING:
    from fcit.planning import Plan, StagePlan


def plan(
    recipe: Recipe,
    method: Annotated[
        str | None, typer.Option(help="Plan with this method instead of the recipe's.")
    ] = None,
    changes: Changes = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Time a few real steps instead of estimating (reads data)."),
    ] = False,
    turns: Annotated[
        bool, typer.Option("--turns", help="Also name the clients of every round, and their tasks.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what a run will be before anything is spent: who trains on what and when, bytes, memory, time.

    The clients of every round are the real ones; --turns names them. Bytes are those of the method's
    own messages, rehearsed with blank tensors of the model's shapes (DISCO: one subspace per task).
    Memory and time are estimates; only --measure reads weights. Data or a model that is not here is
    said so, and the rest is planned.

    Example:  fcit plan recipes/paper/task-hom.toml --method finetune
    """
    from fcit.planning import plan as planned
    from fcit.recipe import config

    found = planned(config.load(recipe, changes or [], method), measure, Terminal())
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False))
    else:
        _print(found, turns)


def _print(found: Plan, turns: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console = Console(width=120)
    heads = ("rounds", "clients", "samples", "steps", "questions", "down", "up", "down + up")
    table = Table("stage", "tasks", title=f"{found.setting}, {found.method}, {found.model}")
    for head in heads:
        table.add_column(head, justify="right")
    for number, stage in enumerate(found.stages, 1):
        table.add_row(str(number), *map(escape, _row(stage)))
    asked = [found.zero_shot, *(stage.tests for stage in found.stages)]
    carried = [_both(stage) for stage in found.stages]
    table.add_section()
    table.add_row(
        "all", "zero-shot answers first", str(sum(stage.rounds for stage in found.stages)), "",
        _count(_sum([stage.samples for stage in found.stages])),
        _count(_sum([stage.steps for stage in found.stages])),
        _count(_sum(asked)), "", "", _bytes(_sum(carried)),
    )  # fmt: skip
    console.print(table)
    console.print(
        "clients: in a round, of those who are there; down, up: bytes to and from one client in one "
        "round, the mean",
        soft_wrap=True,
    )
    if turns:
        table = Table("stage", "round", "clients, counted from 0", title="who trains on what")
        for number, stage in enumerate(found.stages, 1):
            for at, row in enumerate(stage.turns, 1):
                table.add_row(str(number), str(at), escape(_named(row)))
            table.add_section()
        console.print(table)
    if found.memory:
        where = f"{found.device}, {found.dtype}, {found.parameters:,} parameters"
        table = Table("memory of a process that trains", "bytes", title=where)
        for name, value in found.memory.items():
            table.add_row(name, _bytes(value))
        table.add_section()
        table.add_row("at the peak, without the interpreter", _bytes(sum(found.memory.values())))
        console.print(table)
    if found.seconds:
        how = (
            "from real steps" if found.measured else "estimated from matrix products: a lower bound"
        )
        parts = ", ".join(f"{name} {_span(value)}" for name, value in found.seconds.items())
        console.print(f"time ({how}; {found.workers} in parallel): {parts}", soft_wrap=True)
    for note in found.notes:
        console.print(f"not known: {note}", highlight=False, markup=False, soft_wrap=True)


def _row(stage: StagePlan) -> list[str]:
    return [
        " + ".join(
            f"{count} x {task}" if count > 1 else task
            for task, count in Counter(stage.tasks).items()
        ),
        str(stage.rounds),
        f"{stage.per_round} of {stage.clients}",
        *map(_count, (stage.samples, stage.steps, stage.tests)),
        *map(_bytes, (stage.down, stage.up, _both(stage))),
    ]


def _named(row: Sequence[tuple[int, str]]) -> str:
    """A round's clients by task: `Task: 3, 7; Other: 8`."""
    found: dict[str, list[str]] = {}
    for client, task in row:
        found.setdefault(task, []).append(str(client))
    return "; ".join(f"{task}: {', '.join(clients)}" for task, clients in found.items())


def _both(stage: StagePlan) -> int | None:
    return _sum([stage.down_all, stage.up_all])


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _bytes(value: float | None) -> str:
    if value is None:
        return "?"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.4g} TB"


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
