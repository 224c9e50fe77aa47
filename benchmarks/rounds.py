"""CPU seconds of a round and of an evaluation, with vision features computed (cold) and kept (warm).

    .venv/bin/python benchmarks/rounds.py [--shapes mini 60M] [--times 5] [--against DIR] [--json FILE]

mini: the mini model; 60M: a random LLaVA of 60 million parameters, hidden 768, 144 image tokens. Both
are trained with DISCO on the mini suite (size tiny): a round is the turns of five clients (60M: of
one), an evaluation 100 questions (60M: 20) of four datasets, routed over eight subspaces. Cold begins
with an empty cache folder; warm follows as in another process: the cache's files are there, its memory
is empty. Each measurement is a process of its own (`--one`), whose CPU seconds (`time.process_time`)
are counted after the model is loaded, so other work on the machine hardly matters. `forward and
backward` is the same round with batches made beforehand, without dropout and optimizer: what no loop
can save. `evaluation, products` are the seconds of a cold evaluation's matrix products, those of the
vision tower and the text encoder among them, as torch's profiler counts them.

against: the root of another checkout of fcit, measured in alternation with this one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

from command import ended, options, positive, printed

from fcit.files import write_json

SHAPES = ("mini", "60M")
ROOT = Path(__file__).resolve().parents[1]
DATASETS = ("ImageNet-R", "ArxivQA", "IconQA", "Flickr30k")
AGAIN, PASSES = "round, again", "forward and backward"
PRODUCTS = "evaluation, products"
PARTS = (
    "round, cold",
    "round, warm",
    AGAIN,
    PASSES,
    "evaluation, cold",
    "evaluation, warm",
    PRODUCTS,
)
MULTIPLYING = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
"""torch's operators that multiply matrices."""


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = options(__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES)
    parser.add_argument("--times", type=positive, default=5)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("SHAPE", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.against and not (given.against / "src" / "fcit").is_dir():
        parser.error(f"--against: {given.against} is no checkout of fcit")
    if given.one:
        print(json.dumps(one(given.one[0], Path(given.one[1]))))
        return
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    sides = {"here": ROOT} | ({"there": given.against.resolve()} if given.against else {})
    with tempfile.TemporaryDirectory() as room:
        for shape in given.shapes:
            found[shape] = {side: {part: [] for part in PARTS} for side in sides}
            said: dict[str, str] = {}
            for number in range(given.times):
                for side in list(sides) if number % 2 == 0 else list(sides)[::-1]:
                    values = measured(sides[side], shape, Path(room))
                    said[side] = values.pop("answers")
                    for part in PARTS:
                        found[shape][side][part].append(values[part])
            print(f"{shape}: CPU seconds, medians of {given.times}; there / here, quartiles")
            for part in PARTS:
                rows = [found[shape][side][part] for side in sides]
                line = f"  {part:24}" + "".join(f"{median(row):9.3f}" for row in rows)
                if len(rows) > 1:
                    low, middle, high = spread([b / a for a, b in zip(*rows, strict=True)])
                    line += f"{middle:8.2f}  ({low:.2f} - {high:.2f})"
                print(line, flush=True)
            here = found[shape]["here"]
            ratios = [
                again / passes for again, passes in zip(here[AGAIN], here[PASSES], strict=True)
            ]
            low, middle, high = spread(ratios)
            print(f"  {AGAIN} / {PASSES}: {middle:.3f}  ({low:.3f} - {high:.3f})")
            if len(sides) > 1:
                print(f"  answers are {'equal' if len(set(said.values())) == 1 else 'different'}")
    if given.json:
        write_json(given.json, found)


def spread(ratios: list[float]) -> tuple[float, float, float]:
    """The quartiles of ratios that were each measured side by side."""
    low, middle, high = quantiles(ratios * 2 if len(ratios) < 2 else ratios, method="inclusive")
    return low, middle, high


def measured(root: Path, shape: str, room: Path) -> dict:
    """One process's measurements with the fcit of a checkout."""
    room = room / hashlib.sha256(str(root).encode()).hexdigest()[:8]
    environment = os.environ | {
        "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1", "FCIT_CACHE": str(room)
    }  # fmt: skip
    command = [sys.executable, __file__, "--one", shape, str(room)]
    return json.loads(printed(command, environment).splitlines()[-1])


def one(shape: str, room: Path) -> dict:
    """All parts in this process, after the model and the data are loaded."""
    import torch

    from fcit.recipe.config import validate
    from fcit.types import Job
    from fcit.watch import Silent
    from fcit.worker.model import ModelWorker

    path = room / "60M"
    if shape == "60M" and not path.is_dir():
        from fcit_bench.random import Shape, write

        sizes = Shape(768, 2048, 6, 8000, side=168, vision_width=256, vision_layers=4)
        write(path, sizes, torch.bfloat16)
    table = {
        "seed": 0,
        "data": {"size": "tiny"},
        "setting": {"name": "task-hom", "order": list(DATASETS)},
        "federation": {"clients": 10, "per_round": 5, "rounds": 5, "min_samples": 16},
        "training": {"lr": 5e-3, "projector_lr": 1e-4, "batch_size": 4},
        "method": {"name": "disco", "init_std": 0.05},
        "evaluation": {"max_new_tokens": 40 if shape == "mini" else 8},
        "model": {"path": str(path) if shape == "60M" else ""},
    }
    worker = ModelWorker(validate(table))
    experiment, method = worker.experiment, worker.method
    experiment.prepare(Silent())
    turns, each = experiment.plan[0][0], 25
    if shape == "60M":
        turns, each = turns[:1], 5
    state = method.begin(worker.start(), experiment.training_setting.stages[0])
    found: dict = {}
    _ = worker.model, worker.encoder

    def clock(part: str, call):
        begun = time.process_time()
        result = call()
        found[part] = time.process_time() - begun
        return result

    def trained():
        tokens = [worker.identify(turn) for turn in method.to_identify(state, turns)]
        organised = method.organise(state, tokens)
        jobs = [Job(turn, method.send(organised, turn)) for turn in turns]
        for job in jobs:
            worker.train(job, {})
        return organised, jobs

    def emptied() -> None:
        """As if the next part were in a new process, with the files of this one's cache."""
        getattr(worker.model, "forget", worker.model.cache.forget)()
        worker.encoder.cache.clear()

    questions = [experiment.samples(name, "test")[:each] for name in DATASETS]
    warm_up(worker, experiment, turns[0])
    clear(room)
    emptied()
    organised, jobs = clock("round, cold", trained)
    emptied()
    clock("round, warm", trained)
    clock(AGAIN, trained)
    clock(PASSES, forward_and_backward(worker, jobs))

    noise = torch.Generator().manual_seed(0)
    blank, names = worker.model.blank(method.rank), [str(number) for number in range(8)]
    blocks = {
        name: {k: 0.05 * torch.randn(v.shape, generator=noise) for k, v in sorted(blank.items())}
        for name in names
    }
    prompts = [experiment.samples(DATASETS[k % 4], "train")[k].prompt for k in range(8)]
    tokens = worker.encoder.embed("text", prompts, [])
    identity = {"tokens": tokens, "samples": torch.ones(8, dtype=torch.int64)}
    extras = worker.start().extras | {"identity": identity}
    placed = replace(organised, adapters=blocks, extras=extras)

    def evaluated() -> list[str]:
        worker.place(placed)
        said: list[str] = []
        for samples in questions:
            said += answers(worker, samples)
        return said

    clear(room)
    emptied()
    first = clock("evaluation, cold", evaluated)
    emptied()
    again = clock("evaluation, warm", evaluated)
    assert first == again
    clear(room)
    emptied()
    with torch.profiler.profile() as seen:
        evaluated()
    own = (row.self_cpu_time_total for row in seen.key_averages() if row.key in MULTIPLYING)
    found[PRODUCTS] = sum(own) / 1e6
    found["answers"] = hashlib.sha256(json.dumps(first).encode()).hexdigest()
    return found


def warm_up(worker, experiment, turn) -> None:
    """What a process does once: a few answers and a training step."""
    from fcit.rounds.client import Data
    from fcit.types import State

    data = experiment.data(turn)
    worker.place(State())
    worker.answer(Data(data.samples[:2], data.images[:2]))
    batch = worker.model.batch(data.samples[:2], data.images[:2])
    worker.model.receive(worker.start(), 1.0, (), True)
    worker.model.loss(batch).backward()


def clear(room: Path) -> None:
    """Remove the cache of vision features, from the disk and from this process."""
    import shutil

    shutil.rmtree(room / "features", ignore_errors=True)


def answers(worker, samples) -> list[str]:
    """Answers to a dataset's questions in their fixed batches."""
    from fcit.rounds.evaluate import chunks

    texts: dict[int, str] = {}
    for batch in chunks(samples, worker.config.evaluation.batch_size):
        found = worker.answer(worker.experiment.data_of([samples[i] for i in batch]))
        texts |= {i: answer.text for i, answer in zip(batch, found, strict=True)}
    return [texts[i] for i in range(len(samples))]


def forward_and_backward(worker, jobs):
    """The same batches through the model and back, made beforehand, without dropout or optimizer."""
    from fcit.rounds.client import batches, rough_lengths
    from fcit.seeds import numpy_stream

    model, method, size = worker.model, worker.method, worker.config.training.batch_size
    made = []
    for job in jobs:
        data, key = worker.experiment.data(job.turn), (job.turn.stage, 0, job.turn.client)
        lengths = rough_lengths(data.samples, model.images.token_counts(data.images))
        for rows in batches(lengths, size, 1, numpy_stream(0, "batches", *key)):
            samples, images = [data.samples[i] for i in rows], [data.images[i] for i in rows]
            made.append(model.batch(samples, images))
    received = jobs[0].received
    model.receive(received, method.scale, method.trains(received), True)

    def run() -> None:
        for batch in made:
            model.loss(batch).backward()

    return run


if __name__ == "__main__":
    ended(main)
