"""`fcit plan`: what a run will do and cost, as tables or as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from typer import Option

from fcit.cli.options import Changes, Json, Method, Recipe
from fcit.cli.screen import show, show_json, show_table
from fcit.watch import Terminal

if TYPE_CHECKING:
    from fcit.planning import Plan, StagePlan


def plan(
    recipe: Recipe,
    method: Method = None,
    changes: Changes = None,
    measure: Annotated[
        bool, Option("--measure", help="Time a few real training steps instead of estimating.")
    ] = False,
    turns: Annotated[
        bool, Option("--turns", help="Also list the clients of every round with their tasks.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what a run will do and cost before it starts: clients, tasks, bytes, memory, time.

    The clients of every round are exactly those of the run. Bytes come from a rehearsal: the method's own
    messages with empty tensors of the model's shapes (for DISCO with one subspace per task). Memory and
    time are estimates. A small model's time (50 million parameters) comes from a few real steps; a larger
    one's from the speed of matrix products, a lower bound, unless --measure asks for real steps. If the
    data or the model is missing, the plan says so and shows the rest.

    Example:  fcit plan demo.toml --method finetune
    """
    from fcit.planning import plan as make_plan
    from fcit.recipe import config

    planned = make_plan(config.load(recipe, changes or [], method), measure, Terminal())
    if as_json:
        show_json(planned)
    else:
        _print(planned, turns)


def _print(planned: Plan, turns: bool) -> None:
    stages = planned.stages
    samples, steps, asked, both = (
        _sum(values)
        for values in (
            [stage.samples for stage in stages],
            [stage.steps for stage in stages],
            [planned.zero_shot, *(stage.tests for stage in stages)],
            [_both(stage) for stage in stages],
        )
    )
    rounds = str(sum(stage.rounds for stage in stages))
    counts = map(_count, (samples, steps, asked))
    show(f"{planned.setting}, {planned.method}, {planned.model}")
    show_table(
        [
            *((str(number), *_row(stage)) for number, stage in enumerate(stages, 1)),
            None,
            ("all", "zero-shot answers first", rounds, "", *counts, "", "", _bytes(both)),
        ],
        *("stage", "tasks"),
        numbers=("rounds", "clients", "samples", "steps", "questions", "down", "up", "down + up"),
    )
    show(
        "clients: those of a round, of all in the stage; down, up: mean bytes per client and round"
    )
    if planned.general:
        show(
            f"questions: {planned.general} general ones are among those of the zero-shot answers, and of "
            "the last stage if the method can answer them (evaluation.general_questions)"
        )
    if turns:
        show_table(
            (
                (f"{number}, {at}", _by_task(row))
                for number, stage in enumerate(stages, 1)
                for at, row in enumerate(stage.turns, 1)
            ),
            *("stage, round", "clients, counted from 0"),
        )
    if planned.memory:
        parts = [(name, _bytes(value)) for name, value in planned.memory.items()]
        peak = ("at the peak, without the interpreter", _bytes(sum(planned.memory.values())))
        show(f"{planned.device}, {planned.dtype}, {planned.parameters:,} parameters")
        show_table([*parts, None, peak], "memory of a process that trains", numbers=["bytes"])
    if planned.seconds:
        how = (
            "from real steps"
            if planned.measured
            else "estimated from matrix products: a lower bound"
        )
        spans = ", ".join(f"{name} {_span(value)}" for name, value in planned.seconds.items())
        show(f"time ({how}; {planned.workers} in parallel): {spans}")
    show(*(f"not known: {note}" for note in planned.notes))


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


def _by_task(row: Sequence[tuple[int, str]]) -> str:
    """A round's clients by task: `Task: 3, 7; Other: 8`."""
    clients: dict[str, list[str]] = {}
    for client, task in row:
        clients.setdefault(task, []).append(str(client))
    return "; ".join(f"{task}: {', '.join(numbers)}" for task, numbers in clients.items())


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
