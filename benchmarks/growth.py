"""How time and memory grow with the number of clients, subspaces and test questions.

    .venv/bin/python benchmarks/growth.py [--quick] [--no-collector] [--out docs]

Seconds are CPU seconds of one thread, which other work hardly affects. Each point is a separate process
with its own peak of resident memory. The table shows this peak minus that of the first point, and the
exponent of the seconds between the last two points (1 is linear), where constant costs matter least.
Writes growth.json and growth.png.

clients     the partition of 20 samples per client, the plan of 10 rounds, and one aggregation of
            updates of all clients (of the mini model's shape; they share tensors, so the memory is the
            server's own)
tokens      DISCO's grouping of one round's new identity tokens of as many clients: eight groups, 768
            numbers a token, as CLIP ViT-L's text encoder gives
subspaces   one batch of 16 questions routed over K subspaces, answered by the mini model with 8 tokens
            each
questions   answers of 8 tokens to this many questions, in batches of 50, with 8 subspaces
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from command import ended, options, printed

SERIES = {
    "clients": (10, 30, 100, 300, 1000, 3000, 10000),
    "tokens": (10, 30, 100, 300, 1000, 3000, 10000),
    "subspaces": (1, 2, 4, 8, 16, 32, 64),
    "questions": (50, 100, 200, 400, 800),
}
QUICK = {"clients": (10, 100), "tokens": (10, 100), "subspaces": (1, 4), "questions": (4, 8)}
UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes that `ru_maxrss` counts in."""
REPEATS = 3


def main() -> None:
    """Measure every point, print the table, draw the figure."""
    parser = options(__doc__)
    parser.add_argument("--quick", action="store_true", help="two small points per series")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument(
        "--no-collector", action="store_true", help="without Python's garbage collector"
    )
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick and given.out == Path("docs"):
        parser.error("--quick: name another --out than docs, which has the figures of all points")
    if given.inside:
        name, count = given.inside
        if given.no_collector:
            gc.disable()
        print(json.dumps(point(name, int(count))))
        return
    found: dict[str, list[dict]] = {}
    for name, counts in (QUICK if given.quick else SERIES).items():
        found[name] = []
        for count in counts:
            command = [sys.executable, __file__, "--inside", name, str(count)]
            command += ["--no-collector"] * given.no_collector
            found[name].append(json.loads(printed(command).splitlines()[-1]))
            print(
                f"{name} {count}: {found[name][-1]['seconds']:.4g} s", file=sys.stderr, flush=True
            )
    print(table(found))
    from fcit.files import write_json

    write_json(given.out / "growth.json", found)
    draw(found, given.out / "growth.png")


def point(name: str, count: int) -> dict[str, float]:
    """Seconds (minimum of several, to exclude other work) and peak bytes at one size."""
    import torch

    torch.set_num_threads(1)
    kinds = {"clients": clients, "tokens": tokens, "subspaces": subspaces, "questions": questions}
    work = kinds[name](count)
    seconds = []
    for _ in range(REPEATS + 1):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    # The first call warms up.
    return {
        "count": count,
        "seconds": min(seconds[1:]),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT,
    }


def clients(count: int) -> Callable[[], object]:
    """The server's work for `count` clients."""
    from fcit.benchmark.partition import split
    from fcit.benchmark.schedule import plan
    from fcit.methods import find
    from fcit.models import CHECKPOINTS
    from fcit.models.size import model_size
    from fcit.types import Setting, Stage, State, Task, Update

    method = find("finetune")()
    shape = model_size(CHECKPOINTS / "mini-lmm")
    block, task = shape.blank(method.rank), Task("Flickr30k", ("Flickr30k",))
    setting = Setting("grown", (Stage((task,)),), count, count, 10)

    def work() -> object:
        shares = split(20 * count, count, 1.0, 0, "Flickr30k")
        turns = deque(plan(setting, 0)[0], maxlen=1).pop()  # one round at a time, as in a run
        updates = [
            Update(one.client, len(shares[one.client]), {"0": block}, {}, {}) for one in turns
        ]
        return method.aggregate(State({"0": block}), updates)

    return work


def tokens(count: int) -> Callable[[], object]:
    """Dynamic knowledge organization of `count` clients that are new in one round."""
    import torch

    from fcit.methods.disco import Disco
    from fcit.seeds import torch_stream
    from fcit.types import Identity

    method, noise = Disco(), torch_stream(0, "growth")
    groups = torch.randn(8, 768, generator=noise)
    near = groups[torch.arange(count) % 8] + 0.1 * torch.randn(count, 768, generator=noise)
    identities = [Identity(client, "IconQA", token, 20) for client, token in enumerate(near)]
    start = method.start({"a": torch.zeros(8, 1)}, {})

    def work() -> object:
        state = method.organise(start, identities)
        assert len(state.adapters) == min(count, 8)
        return state

    return work


def subspaces(count: int) -> Callable[[], object]:
    """One batch of answers with `count` subspaces."""
    return _asking(16, count)


def questions(count: int) -> Callable[[], object]:
    """Answers to `count` questions."""
    return _asking(count, 8)


def _asking(count: int, blocks: int) -> Callable[[], object]:
    """DISCO's answers to `count` questions about one picture, in batches of at most 50."""

    from fcit.methods.disco import Disco
    from fcit.models import CHECKPOINTS
    from fcit.models.identity import Encoder
    from fcit.models.lmm import LMM
    from fcit.rounds.client import Data
    from fcit.rounds.evaluate import answer, chunks
    from fcit_bench.pair import questions as asked
    from fcit_bench.pair import state

    method = Disco()
    model, encoder = LMM(CHECKPOINTS / "mini-lmm"), Encoder(CHECKPOINTS / "mini-clip")
    held = state(method, model, blocks)
    model.receive(held, method.scale)

    def work() -> object:
        encoder.cache.clear()  # or only the first of the repeats encodes the prompts
        with tempfile.TemporaryDirectory() as folder:
            data = asked(Path(folder), count)
            return [
                answer(model, encoder, method, held, part, 8)
                for chosen in chunks(data.samples, 50)
                for part in [
                    Data([data.samples[i] for i in chosen], [data.images[i] for i in chosen])
                ]
            ]

    return work


def exponent(rows: list[dict]) -> float:
    """The exponent of the power law between the last two points."""
    a, b = rows[-2:]
    return math.log(b["seconds"] / a["seconds"]) / math.log(b["count"] / a["count"])


def table(found: dict[str, list[dict]]) -> str:
    """A Markdown table with one line per point."""
    lines = ["| | | seconds | MB above the first | exponent |", "|---|---|---|---|---|"]
    for name, rows in found.items():
        for row in rows:
            last = f"{exponent(rows):.2f}" if row is rows[-1] else ""
            more = (row["peak"] - rows[0]["peak"]) / 1e6
            lines.append(
                f"| {name} | {row['count']} | {row['seconds']:.4g} | {more:.0f} | {last} |"
            )
    return "\n".join(lines)


def draw(found: dict[str, list[dict]], path: Path) -> None:
    """Two panels per series: seconds by size, with a line of slope 1 through the last point, and below
    it the peak memory minus that of the first point."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    from fcit.files import written_aside

    figure, (panels, below) = plt.subplots(
        2, len(found), figsize=(11, 4.8), sharex="col", layout="constrained"
    )
    for panel, under, (name, rows) in zip(panels, below, found.items(), strict=True):
        counts, seconds = [row["count"] for row in rows], [row["seconds"] for row in rows]
        linear = [seconds[-1] * count / counts[-1] for count in counts]
        panel.loglog(counts, linear, "--", color="0.7", label="linear")
        panel.loglog(counts, seconds, "o-", label="seconds", markersize=4)
        memory = [(row["peak"] - rows[0]["peak"]) / 1e6 for row in rows]
        under.semilogx(counts, memory, "o-", color="C1", markersize=4)
        under.margins(y=0.15)
        under.axhline(0, color="0.7", linewidth=0.8)
        for axis in (panel.xaxis, panel.yaxis, under.xaxis):
            axis.set_minor_formatter(NullFormatter())
        under.set_xlabel(name)
    panels[0].set_ylabel("seconds")
    below[0].set_ylabel("MB above the first")
    panels[0].legend(frameon=False)
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=110, format="png")


if __name__ == "__main__":
    ended(main)
