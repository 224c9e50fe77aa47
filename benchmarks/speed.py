"""Where the time of a round goes on the mini suite: operators, images, padding, start-up.

    .venv/bin/python benchmarks/speed.py [--quick] [--parts round batches start] [--json FILE]

round     every client's turn of the first round in this process, compared with a lower bound: the
          floating-point operations of the trained path, forward and backward, at the rate of large
          matrix products and at the rate of the model's own (narrow) products. torch's profiler divides
          the rest among operators. CPU seconds of the recipe's single thread, which other work hardly
          affects. In pass 1, in which images are encoded, also the share of the CPU seconds that go to
          reading, decoding and preparing images
vision    distinct images of that round, and how many were encoded in the first and in the second pass
batches   the share of padding among the tokens of
          all turns of the plan, with batches grouped by length and with random batches
start     medians of five processes, in wall-clock and CPU seconds: `fcit --help`; a second `fcit run`
          until its first answer begins, and until its first training step begins (one process, with
          few zero-shot answers, everything cached)
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from command import ended, options
from starting import start

if TYPE_CHECKING:
    import torch

PARTS = ("round", "batches", "start")
OPERATORS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear", "mkldnn"),
    "dropout": ("bernoulli_", "random_"),
    "AdamW and clipping": (
        "_fused_adamw", "_foreach", "lerp", "addcdiv", "addcmul", "linalg_vector_norm",
    ),
    "softmax and losses": ("softmax", "nll_loss", "cross_entropy"),
    "copies and casts": ("copy_", "_to_copy", "cat", "index", "clone", "masked_scatter", "embedding"),
    "element by element": (
        "add", "mul", "div", "silu", "pow", "rsqrt", "mean", "sum", "neg", "fill_", "gelu", "where",
        "sub", "cos", "sin",
    ),
}  # fmt: skip
"""Operators by what they are for, by the beginnings of their names."""


RECIPE = Path(__file__).parents[1] / "recipes" / "mini" / "task-hom.toml"


def main() -> None:
    """Measure all parts and print them."""
    parser = options(__doc__)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--quick", action="store_true", help="two clients with few samples")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    changes = ["data.size=tiny", "federation.workers=1", "evaluation.general_questions=0"]
    if given.quick:
        changes += ['setting.order=["ImageNet-R","ArxivQA"]', "federation.per_round=2"]
        changes += ["data.train=200", "data.test=8", "federation.rounds=1"]
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FCIT_CACHE"] = folder
        parts = {"round": a_round, "batches": batches, "start": start}
        for title in given.parts:
            part = parts[title]
            found[title] = part(given.recipe, changes, 1 if given.quick else 5)
            print(f"{title}")
            for name, value in found[title].items():
                print(f"  {name:56}{value:12.4g}", flush=True)
    print(f"load average {os.getloadavg()[0]:.1f}")
    if given.json:
        from fcit.files import write_json

        write_json(given.json, found)


def a_round(recipe: Path, changes: Sequence[str], times: int) -> dict[str, float]:
    """Measure one round's turns: seconds, the lower bound, operators, encoded images."""
    from fcit.models.size import PHOTO, TokenCounter, model_size
    from fcit.recipe.config import load
    from fcit.types import Job
    from fcit.watch import Silent
    from fcit.worker.model import ModelWorker

    site = ModelWorker(load(recipe, changes))
    experiment, method = site.experiment, site.method
    experiment.prepare(Silent())
    turns = experiment.plan[0][0]
    state = method.begin(site.start(), experiment.training_setting.stages[0])
    state = method.organise(
        state, [site.identify(turn) for turn in method.to_identify(state, turns)]
    )
    jobs = [Job(turn, method.send(state, turn)) for turn in turns]
    images = {path.read_bytes() for turn in turns for path in experiment.data(turn).images}
    cache = site.model.cache
    found: dict[str, float] = {"clients": len(turns), "distinct images": len(images)}
    preparing: list[float] = []
    decoding: list[float] = []
    seconds: list[float] = []
    for number in range(2):
        before = cache.computed
        with (
            timed(site.model, "batch", preparing),
            timed(site.model.images, "_prepare_new", decoding, time.thread_time),
        ):
            begun = time.process_time()
            updates = [site.train(job, {})[0] for job in jobs]
            seconds.append(time.process_time() - begun)
        found[f"images encoded in pass {number + 1}"] = cache.computed - before
        if number == 0:
            found["seconds of pass 1, images encoded"] = seconds[0]
            found["share of decoding and preparing in pass 1"] = sum(decoding) / seconds[0]
            found["share of tokenizing, preparing and encoding in pass 1"] = (
                sum(preparing) / seconds[0]
            )
            preparing.clear()
    steps = sum(update.metrics["steps"] for update in updates)
    found |= {"seconds": seconds[1], "steps": steps, "seconds a step": seconds[1] / steps}
    found["share of collating batches in pass 2, texts and images known"] = (
        sum(preparing) / seconds[1]
    )

    shape = model_size(experiment.model_path())
    samples = [sample for turn in turns for sample in experiment.data(turn).samples]
    counter = TokenCounter(experiment.model_path())
    text, *_ = counter.image(PHOTO)
    spans = counter.lengths(samples, [text] * len(samples), 2048)
    work = lower_bound(shape, spans, method.rank)
    dtype = site.model.model.dtype
    rows = experiment.config.training.batch_size * sum(span for span, _ in spans) // len(spans)
    large, own = rate(1024, 1024, 1024, dtype), rate(rows, shape.hidden, shape.intermediate, dtype)
    found |= {
        "GFLOP of the lower bound": work / 1e9,
        "GFLOP/s of large products": large / 1e9,
        "GFLOP/s of the model's own products": own / 1e9,
        "lower bound by large products, s": work / large,
        "lower bound by its own products, s": work / own,
        "share reached, of large products": work / large / seconds[1],
        "share reached, of its own products": work / own / seconds[1],
    }
    return found | profile(lambda: site.train(jobs[0], {}))


def lower_bound(shape, spans: Sequence[tuple[int, int]], rank: int) -> float:
    """Floating-point operations of one pass over the samples, forward and backward, without padding.

    Frozen layers need no gradient of their weights; LoRA and the projector do.
    """
    tokens = sum(length for length, _ in spans)
    answered = sum(count for _, count in spans)
    lora = sum(rank * (wide + out) for wide, out in shape.layers.values())
    attention = 4 * shape.hidden * shape.depth * sum(length**2 for length, _ in spans)
    head = 2 * shape.hidden * shape.vocabulary * answered
    joined = 2 * sum(_count(one) for one in shape.projector.values()) * shape.image_tokens
    return (
        2 * (2 * shape.decoder * tokens + head)
        + 3 * (2 * lora * tokens + attention + joined * len(spans))
    )  # fmt: skip


def _count(shape: tuple[int, ...]) -> int:
    return shape[0] * shape[1] if len(shape) == 2 else 0


def rate(rows: int, wide: int, out: int, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a product of [rows, wide] and [wide, out]."""
    import torch
    from torch.nn import functional as F

    from fcit.seeds import torch_stream

    noise = torch_stream(0, "rate")
    x, weight = (torch.randn(size, wide, generator=noise).to(dtype) for size in (rows, out))
    F.linear(x, weight)
    begun, times = time.process_time(), 0
    while time.process_time() - begun < 1:
        F.linear(x, weight)
        times += 1
    return 2 * rows * wide * out * times / (time.process_time() - begun)


def profile(work: Callable[[], object]) -> dict[str, float]:
    """Shares of a turn's time by kind of operator; `python and the rest` is the time outside
    operators."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    with profiler(activities=[ProfilerActivity.CPU], acc_events=True) as seen:
        begun = time.perf_counter()
        work()
        wall = time.perf_counter() - begun
    shares: Counter[str] = Counter()
    for event in seen.key_averages():
        if event.key.startswith("aten::"):
            shares[_part(event.key.removeprefix("aten::"))] += (
                event.self_cpu_time_total / 1e6 / wall
            )
    found = {f"profile: {name}": shares[name] for name in [*OPERATORS, "other operators"]}
    return found | {"profile: python and the rest": 1 - sum(shares.values())}


def _part(operator: str) -> str:
    for name, starts in OPERATORS.items():
        if operator.lstrip("_").startswith(tuple(start.lstrip("_") for start in starts)):
            return name
    return "other operators"


@contextmanager
def timed(
    owner: object,
    name: str,
    seconds: list[float],
    clock: Callable[[], float] = time.process_time,
) -> Iterator[None]:
    """Within this context, every call of a method appends its seconds to the list."""
    call = getattr(owner, name)

    def clocked(*given, **more):
        begun = clock()
        try:
            return call(*given, **more)
        finally:
            seconds.append(clock() - begun)

    with mock.patch.object(owner, name, clocked):
        yield


def batches(recipe: Path, changes: Sequence[str], times: int) -> dict[str, float]:
    """Padding over all turns of the plan (each client and task once)."""
    from fcit.models.processors import ImageReader
    from fcit.models.size import PHOTO, TokenCounter
    from fcit.recipe.config import load
    from fcit.rounds.client import grouped, rough_lengths
    from fcit.seeds import numpy_stream
    from fcit.watch import Silent
    from fcit.worker.experiment import Experiment

    experiment = Experiment(load(recipe, changes))
    experiment.prepare(Silent())
    counter, batch = TokenCounter(experiment.model_path()), experiment.config.training.batch_size
    reader = ImageReader(counter.processor, counter.config.model_type == "llava")
    text, *_ = counter.image(PHOTO)
    turns = {(t.client, t.task.name): t for stage in experiment.plan for r in stage for t in r}
    tokens, grouped_tokens, random_tokens = 0, 0, 0
    for turn in turns.values():
        data = experiment.data(turn)
        texts = [text] * len(data.samples)
        spans = [length for length, _ in counter.lengths(data.samples, texts, 2048)]
        steps = rough_lengths(data.samples, reader.token_counts(data.images))
        rng = numpy_stream(0, "batches", turn.client)
        shuffled = rng.permutation(len(spans)).tolist()
        tokens += sum(spans)
        grouped_tokens += _padded(spans, grouped(steps, batch, rng))
        random_tokens += _padded(
            spans, (shuffled[at : at + batch] for at in range(0, len(shuffled), batch))
        )
    return {
        "tokens": tokens,
        "padding, grouped by length": 1 - tokens / grouped_tokens,
        "padding, in random order": 1 - tokens / random_tokens,
    }


def _padded(spans: Sequence[int], chosen: Iterator[list[int]]) -> int:
    return sum(len(batch) * max(spans[i] for i in batch) for batch in chosen)


if __name__ == "__main__":
    ended(main)
