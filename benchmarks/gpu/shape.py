"""A model of LLaVA-1.5-7B's shape on a CUDA device: speed, memory, and a round of five clients.

    .venv/bin/python benchmarks/gpu/shape.py write FOLDER               # random weights, bf16, 14 GB
    .venv/bin/python benchmarks/gpu/shape.py bench FOLDER [--json FILE]
    .venv/bin/python benchmarks/gpu/shape.py round FOLDER [--quantize 4bit] [--json FILE]

`bench` prints the measured rate of bf16 matrix products, the share of it that training reaches, tokens
per second in training and in answering with and without routing over eight subspaces, and the ratios to
PEFT of `fcit bench`. The share counts the decoder's matrix products, forward and backward, for all tokens
of the batch; the vision tower is excluded, because its features are cached.

`round` lets the local engine train one round of five clients, two steps of eight samples each, and prints
its seconds and its peak of allocated memory beside the estimate of `fcit plan`.

--cpu-dry-run does the same with small shapes on a CPU: its figures say nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RANK, BATCH, STEPS, CLIENTS, TOKENS, SUBSPACES = 8, 8, 2, 5, 48, 8


def main() -> None:
    """Do one of the three."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("do", choices=("write", "bench", "round"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quantize", default="none", choices=("none", "8bit", "4bit"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cpu-dry-run", action="store_true")
    given = parser.parse_args()
    import torch

    if not (given.cpu_dry_run or torch.cuda.is_available()):
        sys.exit("shape.py: no CUDA device here; --cpu-dry-run rehearses on a CPU")
    given.device = "cpu" if given.cpu_dry_run else "cuda"
    if given.do == "write":
        found = write(given.folder, given.device)
    elif not (given.folder / "config.json").is_file():
        sys.exit(f"shape.py: {given.folder} has no model; write it first")
    else:
        found = (bench if given.do == "bench" else one_round)(given)
    for name, value in found.items():
        print(f"{name:44}{value:>12.5g}" if isinstance(value, int | float) else f"{name:44}{value}")
    if given.json:
        from fcit.files import write_json

        write_json(given.json, found)


def write(folder: Path, device: str) -> dict[str, Any]:
    """Write the checkpoint; returns its number of parameters and the seconds it took."""
    import torch

    from fcit_bench.random import Shape
    from fcit_bench.random import write as write_model

    shape = Shape(4096, 11008, 32, side=336, vision_width=1024, vision_layers=24)
    if device == "cpu":
        shape = Shape(128, 344, 2, vocabulary=2048)
    begun = time.perf_counter()
    parameters = write_model(folder, shape, torch.bfloat16, device)
    return {"parameters": parameters, "seconds": time.perf_counter() - begun}


def bench(given: argparse.Namespace) -> dict[str, Any]:
    """Speed by name; seconds are medians over interleaved rounds."""
    from statistics import median

    import torch

    from fcit.models.size import model_size
    from fcit.planning.estimates import products_per_second
    from fcit_bench import Options, device_name, ratios
    from fcit_bench.pair import Pair
    from fcit_bench.timing import interleaved

    rounds = 1 if given.cpu_dry_run else 3
    body = model_size(given.folder).matrices
    tokens = 4 if given.cpu_dry_run else TOKENS
    options = Options(
        rank=RANK, subspaces=SUBSPACES, batch=BATCH, steps=STEPS, tokens=tokens, rounds=rounds
    )
    kind = torch.float32 if given.cpu_dry_run else torch.bfloat16
    with tempfile.TemporaryDirectory(prefix="fcit-gpu-") as scratch:
        place = Path(scratch)
        (place / "model").symlink_to(given.folder.resolve())
        pair = Pair(place, options, given.device, kind)
        seconds = interleaved(pair.trains(), rounds, prepare=pair.prepare)
        seconds |= interleaved(pair.answers(), rounds, prepare=pair.prepare)
        memory = pair.memory()
        asked = pair.ours.batch(pair.asked.samples, pair.asked.images).mask.sum().item()
    speed = products_per_second(given.device, kind, torch.get_num_threads())
    trained = STEPS * asked / median(seconds["train"])
    written = BATCH * tokens
    compared = ratios(seconds, options, given.device)
    return {
        "device": device_name(given.device),
        "bf16 matrix products, TFLOP/s": speed / 1e12,
        "tokens of a sample": asked / BATCH,
        "trained tokens/s": trained,
        "share of the rate of matrix products": 4 * body * trained / speed,
        "answer tokens/s, routed over eight subspaces": written / median(seconds["answer"]),
        "answer tokens/s, no adapters": written / median(seconds["answer base"]),
        "GB added by training": memory.added[0] / 1e9,
        "GB added by training, PEFT": memory.added[1] / 1e9,
        **{name: one.ratio for name, one in compared.items()},
        **{
            f"{name}, quartiles": f"{one.low:.3f} - {one.high:.3f}"
            for name, one in compared.items()
        },
    }


def one_round(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of a round of the local engine, and the memory that was planned."""
    import torch

    from fcit import suite
    from fcit.engines.local import LocalEngine
    from fcit.planning import plan
    from fcit.recipe.config import validate
    from fcit.rounds.server import take_round
    from fcit.worker.experiment import Experiment
    from fcit_bench import device_name

    with tempfile.TemporaryDirectory(prefix="fcit-gpu-") as scratch:
        data = Path(scratch) / "data"
        suite.write(data, 0, CLIENTS * BATCH * STEPS, 1, ["Flickr30k"])
        config = validate(
            {
                "data": {"root": str(data)},
                "model": {
                    "path": str(given.folder), "device": given.device, "dtype": "auto",
                    "quantize": given.quantize, "cache_features": False,
                },
                "setting": {"name": "task-hom", "order": ["Flickr30k"], "beta": 1000.0},
                "federation": {"clients": CLIENTS, "per_round": CLIENTS, "rounds": 2, "workers": 1},
                "training": {"batch_size": BATCH},
                "method": {"name": "disco", "rank": RANK},
            }
        )  # fmt: skip
        planned = plan(config).memory
        experiment = Experiment(config)
        peak = 0
        seconds: list[float] = []
        steps = 0.0
        with LocalEngine(config, 1) as engine:
            begun = time.perf_counter()
            run = experiment.federated_run(engine.token_width())
            state = run.method.begin(engine.start(), run.setting.stages[0])
            loaded = time.perf_counter() - begun
            for turns in run.plan[0]:
                if given.device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                begun = time.perf_counter()
                state, report = take_round(run, state, turns, engine)
                seconds.append(time.perf_counter() - begun)
                steps = sum(update.metrics["steps"] for update in report.updates)
                if given.device == "cuda":
                    peak = torch.cuda.max_memory_allocated()
    whole = sum(planned.values())
    return {
        "device": device_name(given.device),
        "weights": given.quantize,
        "seconds until the model is loaded": loaded,
        "seconds of the first round, features included": seconds[0],
        "seconds of the second round": seconds[1],
        "steps of that round": steps,
        "GB at its peak": peak / 1e9,
        "GB planned": whole / 1e9,
        "planned / measured": whole / peak if peak else "not on a CPU",
        **{f"planned: {name}, GB": value / 1e9 for name, value in planned.items()},
    }


if __name__ == "__main__":
    from fcit.types import FcitError

    try:
        main()
    except (FcitError, OSError) as error:
        sys.exit(f"shape.py: {error}")
