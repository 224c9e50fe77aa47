"""What a round costs: bytes by wire format, seconds and memory by number of clients, a message's process.

    .venv/bin/python benchmarks/cost.py wire [--seeds 0 1 2] [--out runs/cost] [--set key=value ...]
    .venv/bin/python benchmarks/cost.py clients [--clients 10 100 1000] [--engines local flower]
    .venv/bin/python benchmarks/cost.py message [--times 5]

`wire`: the mini suite's task-hom at size tiny with disco. One row per format, with the bytes of all K
subspaces for comparison. Finished runs are read, not repeated.
`clients`: one round in which every client takes part, with about two samples of IconQA each, with the
local engine and in Flower's simulation. Each row is a separate process with its workers and their
model.
`message`: a node of a deployment starts a process for every message. Median of the time that this adds
to a turn of the mini suite.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from command import ended, options, positive, printed

from fcit.aggregation.packing import Wire, pack
from fcit.files import read_lines
from fcit.recipe import config
from fcit.rounds.runfolder import RunFolder
from fcit.runs.api import run
from fcit.seeds import torch_stream
from fcit.watch import Silent, Terminal
from fcit.weights import nbytes

RECIPE = Path(__file__).parents[1] / "recipes" / "mini" / "task-hom.toml"
FORMS: tuple[Wire, ...] = ("float32", "bfloat16", "int8")


def measured(out: Path, changes: Sequence[str]) -> dict[str, Any]:
    """A run's matrix.json, from a finished run or from a new one."""
    made = config.load(RECIPE, changes)
    return run(made, out, resume=RunFolder(out).begun(), watch=Terminal()).results


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation."""
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def wire(asked: argparse.Namespace) -> None:
    """Bytes per client and round, and Last, for each format."""
    print("| on the wire | KB down | KB up | all K, KB either way | Last |\n|---|---|---|---|---|")
    for form in FORMS:
        places = {seed: asked.out / f"{form}-seed{seed}" for seed in asked.seeds}
        changes = ["data.size=tiny", f"federation.wire={form}", *asked.set]
        last = [measured(place, [f"seed={k}", *changes])["last"] for k, place in places.items()]
        place = next(iter(places.values()))
        rows = read_lines(place / "log.jsonl")
        down, up = (
            fmean(size for row in rows for size in row[key]) for key in ("bytes_down", "bytes_up")
        )
        state, _ = RunFolder(place).state()
        shared = {"projector": state.extras["projector"]} if "projector" in state.extras else {}
        noise = torch_stream(0, "wire")
        every = sum(nbytes(pack(x, form, noise)) for x in (state.adapters | shared).values())
        sizes = " | ".join(f"{size / 1e3:.1f}" for size in (down, up, every))
        print(f"| {form} | {sizes} | {spread(last)} |", flush=True)


def clients(asked: argparse.Namespace) -> None:
    """Seconds and memory of one round, for each engine and number of clients."""
    print(
        "| engine | clients | seconds of the round | server's memory, MB | largest worker's, MB |"
    )
    print("|---|---|---|---|---|")
    for engine, count in product(asked.engines, asked.clients):
        command = [sys.executable, __file__, "clients", "--out", str(asked.out)]
        changes = [f"federation.engine={engine}", *asked.set]
        command += [word for one in changes for word in ("--set", one)]
        row = json.loads(printed([*command, "--inside", str(count)]).splitlines()[-1])
        print(
            f"| {engine} | {count} | {row['seconds']:.1f} | {row['mb']:.0f} | {row['worker']:.0f} |",
            flush=True,
        )


def one_round(out: Path, count: int, changes: Sequence[str]) -> dict[str, float]:
    """Run a federation of `count` clients that all train once."""
    import resource

    made = config.load(
        RECIPE,
        [
            'setting.order=["IconQA"]',
            f"federation.clients={count}",
            f"federation.per_round={count}",
            "federation.rounds=1",
            "federation.min_samples=1",
            f"data.train={2 * count}",
            "setting.beta=1000.0",  # nearly equal shares
            "data.test=20",
            *changes,
        ],
    )
    place = out / f"clients-{count}-{time.time_ns()}"
    run(made, place, watch=Silent())
    (row,) = read_lines(place / "log.jsonl")
    assert len(row["clients"]) == count
    unit = 1 << 20 if sys.platform == "darwin" else 1024  # of ru_maxrss in a megabyte
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    return {"seconds": row["seconds"], "mb": peak, "worker": worker}


def message(asked: argparse.Namespace) -> None:
    """Seconds from the start of a process to the end of a turn, in parts."""
    rows = []
    for _ in range(asked.times + 1):
        begun = time.time()
        command = [sys.executable, __file__, "message", "--inside", "1"]
        at = json.loads(printed(command).splitlines()[-1])
        rows.append([late - soon for soon, late in zip([begun, *at], at, strict=False)])
    print("| process | imports, base model, data | first turn | the same turn again |")
    print("|---|---|---|---|")  # the first process is left out: it fills caches
    print("| " + " | ".join(f"{median(part):.2f}" for part in zip(*rows[1:], strict=True)) + " |")


def one_message() -> list[float]:
    """The times at which a node's process has started, has its model, and has trained once and
    twice."""
    from fcit.types import Job
    from fcit.worker.model import ModelWorker

    at = [time.time()]
    site = ModelWorker(config.load(RECIPE, ["data.size=tiny"]))
    site.experiment.prepare(Silent())
    turn = site.experiment.plan[0][0][0]
    assert site.model is not None
    site.experiment.data(turn)
    at.append(time.time())
    state = site.method.organise(site.start(), [site.identify(turn)])  # the server's part
    job, apart = Job(turn, site.method.send(state, turn)), time.time() - at[-1]
    for _ in range(2):
        site.train(job, {})
        at.append(time.time() - apart)
    return at


def main() -> int:
    """Print the requested table."""
    parser = options(__doc__)
    parser.add_argument("what", choices=("wire", "clients", "message"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--engines", nargs="+", default=["local", "flower"])
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--out", type=Path, default=Path("runs/cost"))
    parser.add_argument(
        "--times", type=positive, default=5, help="processes timed, after one for warming up"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside is not None and asked.what == "message":
        print(json.dumps(one_message()))
    elif asked.inside is not None:
        print(json.dumps(one_round(asked.out, asked.inside, asked.set)))
    elif asked.what == "wire":
        wire(asked)
    elif asked.what == "message":
        message(asked)
    else:
        clients(asked)
    return 0


if __name__ == "__main__":
    ended(main)
