"""`fcit bench`: the speed of training and answering compared with PEFT, as a table and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcit.files import write_json
from fcit.watch import Terminal
from fcit_bench import Options, Result, measure


def bench(
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all results there.")
    ] = None,
    hidden: Annotated[int, typer.Option(help="Hidden size of the language model.")] = 2048,
    intermediate: Annotated[int, typer.Option(help="Hidden size of its MLPs.")] = 5504,
    layers: Annotated[int, typer.Option(help="Number of its layers.")] = 2,
    rank: Annotated[int, typer.Option(help="Rank r of every LoRA block.")] = 8,
    subspaces: Annotated[int, typer.Option(help="Number of subspaces K that answers mix.")] = 8,
    batch: Annotated[int, typer.Option(help="Samples per step, and questions per batch.")] = 16,
    steps: Annotated[int, typer.Option(help="Training steps per timed turn.")] = 2,
    tokens: Annotated[int, typer.Option(help="Tokens per answer.")] = 32,
    rounds: Annotated[int, typer.Option(help="Repetitions of every measurement.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cuda, mps or cpu.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    cpu_time: Annotated[
        bool,
        typer.Option("--cpu-time", help="Count CPU seconds, for a machine with other work."),
    ] = False,
) -> None:
    """Compare the speed of training and answering with PEFT's LoRA, on the same random LLaVA-like model.

    Both sides do the same client turn and the same generation, in alternation. A ratio is fcit's
    throughput divided by PEFT's: the median over the rounds, with quartiles. PEFT's adapters have the
    model's dtype, which is its faster choice; rows named float32 use PEFT's default. generate_vs_base
    compares with PEFT's side with its adapters disabled. Needs peft.

    Example:  fcit bench --layers 1 --rounds 3
    """
    options = Options(
        hidden, intermediate, layers, rank, subspaces, batch, steps, tokens,
        rounds=rounds, device=device, dtype=dtype, cpu_time=cpu_time,
    )  # fmt: skip
    result = measure(options, Terminal())
    _print(result)
    if as_json:
        write_json(as_json, result.table())


def _print(result: Result) -> None:
    from fcit.cli.screen import show, show_table  # fcit.cli imports this file

    machine = result.machine
    load = ", ".join(f"{value:.1f}" for value in machine["load"])
    rows: list[tuple[str, ...]] = []
    verdicts = {None: "", True: "PASS", False: "FAIL"}
    for name, ratio in result.ratios.items():
        target = "" if ratio.target is None else f"{ratio.target:g}"
        rows.append((
            name, ratio.unit, f"{ratio.ours:.3g}", f"{ratio.theirs:.3g}", f"{ratio.ratio:.3f}",
            f"{ratio.low:.3f} - {ratio.high:.3f}", target, verdicts[ratio.met],
        ))  # fmt: skip
    memory = result.memory
    ours, theirs = memory.added
    rows.append((
        "train_memory_vs_peft", "MB added", f"{ours / 1e6:.1f}", f"{theirs / 1e6:.1f}",
        f"{ours / theirs:.3f}", "", f"+ {memory.stored / 1e6:.1f} MB", verdicts[memory.met],
    ))  # fmt: skip
    show(
        f"{machine['device']}, {machine['threads']} threads, {machine['dtype']}, "
        f"{machine['parameters'] / 1e6:.0f} M parameters; torch {machine['torch']}, "
        f"peft {machine['peft']}; load average before and after: {load}"
    )
    heads = ("ours", "theirs", "ratio", "quartiles", "target", "verdict")
    show_table(rows, "comparison", "unit", numbers=heads)
