"""A model of LLaVA-1.5-7B's shape on a CUDA device: tokens per second in training and generation, and
memory.

    .venv/bin/python benchmarks/gpu.py [--batch 8] [--rounds 5] [--json gpu.json]

Random weights in bf16, rank 8, K = 8. Prints the measured rate of bf16 matrix products, the share of it
that training reaches, tokens per second in training and in answering with and without routing, peak
memory, and the seconds of five clients' turns of two steps each. PEFT is measured too (`fcit bench`).

The share counts the decoder's matrix products, forward and backward, for all tokens of the batch. It
excludes the vision tower, whose features are cached. Both peaks include PEFT's adapters. The training
peak is that of fcit's turn alone, with PEFT's adapters in bf16. The answering peak is the maximum over
all contenders, PEFT in float32 included. Needs CUDA, peft, and 14 GB in the temporary folder ($TMPDIR).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

CLIENTS, STEPS = 5, 2
"""Turns timed together, and steps of each."""


def main() -> None:
    """Measure, print, and write JSON if requested."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit("gpu.py: no CUDA device here; this benchmark is for one")
    found = measure(given)
    for name, value in found.items():
        print(f"{name:36}{value:>14.5g}" if isinstance(value, int | float) else f"{name:36}{value}")
    if given.json:
        from fcit.files import write_json

        write_json(given.json, found)


def measure(given: argparse.Namespace) -> dict[str, float | str]:
    """All figures by name; seconds are medians over interleaved rounds."""
    from statistics import median

    import torch

    from fcit.models.size import model_size
    from fcit.planning.estimates import products_per_second
    from fcit_bench import Options, ratios
    from fcit_bench.pair import Pair
    from fcit_bench.random import Shape, write
    from fcit_bench.timing import interleaved

    shape = Shape(4096, 11008, given.layers, side=336, vision_width=1024, vision_layers=24)
    options = Options(
        shape.hidden, shape.intermediate, shape.layers, batch=given.batch, tokens=given.tokens,
        rounds=given.rounds, steps=STEPS,
    )  # fmt: skip
    kind = torch.bfloat16
    with tempfile.TemporaryDirectory(prefix="fcit-gpu-") as folder:
        place = Path(folder)
        parameters = write(place / "model", shape, kind, "cuda")
        torch.cuda.empty_cache()
        body = model_size(place / "model").matrices
        pair = Pair(place, options, "cuda", kind)
        train = pair.trains()["train"]
        train()  # warm-up: features are cached
        torch.cuda.reset_peak_memory_stats()
        train()  # before a contender converts PEFT's adapters to float32
        training = torch.cuda.max_memory_allocated()
        seconds = interleaved(pair.trains(), given.rounds)
        begun = time.perf_counter()
        for _ in range(CLIENTS):
            train()
        five_turns = time.perf_counter() - begun
        answers = {name: call for name, call in pair.answers().items() if name != "alone"}
        torch.cuda.reset_peak_memory_stats()
        seconds |= interleaved(answers, given.rounds)
        answering = torch.cuda.max_memory_allocated()
        seconds |= interleaved({"alone": pair.answers()["alone"]}, given.rounds)
        tokens = pair.ours.batch(pair.asked.samples, pair.asked.images).mask.sum().item()
    speed = products_per_second("cuda", kind, torch.get_num_threads())
    trained = options.steps * tokens / median(seconds["train"])
    written = options.batch * options.tokens
    found: dict[str, float | str] = {
        "device": torch.cuda.get_device_name(),
        "parameters": parameters,
        "bf16 matrix products, TFLOP/s": speed / 1e12,
        "trained tokens/s": trained,
        "share of that rate": 4 * body * trained / speed,
        "answer tokens/s, routed over K": written / median(seconds["answer"]),
        "answer tokens/s, no adapters": written / median(seconds["answer base"]),
        "peak while training, GB": training / 1e9,
        "peak while answering, GB": answering / 1e9,
        "five clients' turns of two steps, s": five_turns,
    }
    return found | {name: one.ratio for name, one in ratios(seconds, options, "cuda").items()}


if __name__ == "__main__":
    main()
