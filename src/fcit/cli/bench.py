"""`fcit bench`: training and answering beside PEFT, as a table and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcit.watch import Terminal

if TYPE_CHECKING:
    from fcit_bench import Result


def bench(
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all figures there.")
    ] = None,
    hidden: Annotated[int, typer.Option(help="Width of the language model.")] = 2048,
    intermediate: Annotated[int, typer.Option(help="Width of its MLPs.")] = 5504,
    layers: Annotated[int, typer.Option(help="Its layers.")] = 2,
    rank: Annotated[int, typer.Option(help="r of every LoRA block.")] = 8,
    subspaces: Annotated[int, typer.Option(help="K, the subspaces that answers mix.")] = 8,
    batch: Annotated[int, typer.Option(help="Samples of a step, questions of a batch.")] = 16,
    steps: Annotated[int, typer.Option(help="Steps of a timed client's turn.")] = 2,
    tokens: Annotated[int, typer.Option(help="Length of an answer.")] = 32,
    rounds: Annotated[int, typer.Option(help="How often everything is timed.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cuda, mps or cpu.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    cpu_time: Annotated[
        bool,
        typer.Option("--cpu-time", help="Count seconds on the CPU: for a machine with other work."),
    ] = False,
) -> None:
    """Time training and answering of a random LLaVA-shaped model beside PEFT's LoRA on the same weights.

    Both sides run the same client's turn and the same generation, in alternation; a ratio is our
    throughput over theirs, the median over rounds with its quartiles. PEFT's adapters are in the model's
    numbers (its faster choice); lines with float32 are PEFT's own choice. generate_vs_base is
    PEFT's side with its adapters off: by it the other ratios tell how much is both sides'. Needs peft.

    Example:  fcit bench --layers 1 --rounds 3
    """
    from fcit_bench import Options, measure

    options = Options(
        hidden, intermediate, layers, rank, subspaces, batch, steps, tokens,
        rounds=rounds, device=device, dtype=dtype, cpu_time=cpu_time,
    )  # fmt: skip
    found = measure(options, Terminal())
    if as_json:
        from fcit.files import write_json

        write_json(as_json, found.table())
    _print(found)


def _print(found: Result) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console = Console(width=120)
    machine = found.machine
    load = ", ".join(f"{one:.1f}" for one in machine["load"])
    console.print(
        f"{machine['device']}, {machine['threads']} threads, {machine['dtype']}, "
        f"{machine['parameters'] / 1e6:.0f} M parameters; torch {machine['torch']}, "
        f"peft {machine['peft']}; load average before and after: {load}",
        soft_wrap=True,
        highlight=False,
    )
    table = Table("comparison", "unit")
    for head in ("ours", "theirs", "ratio", "quartiles", "target", "verdict"):
        table.add_column(head, justify="right")
    verdicts = {None: "", True: "PASS", False: "FAIL"}
    for name, one in found.ratios.items():
        target = "" if one.target is None else f"{one.target:g}"
        table.add_row(
            name, one.unit, f"{one.ours:.3g}", f"{one.theirs:.3g}", f"{one.ratio:.3f}",
            f"{one.low:.3f} - {one.high:.3f}", target, verdicts[one.met],
        )  # fmt: skip
    memory = found.memory
    ours, theirs = memory.added
    table.add_row(
        "train_memory_vs_peft", "MB added", f"{ours / 1e6:.1f}", f"{theirs / 1e6:.1f}",
        f"{ours / theirs:.3f}", "", f"+ {memory.stored / 1e6:.1f} MB", verdicts[memory.met],
    )  # fmt: skip
    console.print(table)
