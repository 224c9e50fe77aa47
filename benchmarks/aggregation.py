"""The server's memory while it averages updates of one block of LLaVA-1.5-7B, by the number of updates.

    .venv/bin/python benchmarks/aggregation.py [--updates 10 100 1000] [--dtype float32] [--out FOLDER]

All updates are in one file, which is opened and read once per update. (As separate files in float32,
which is what the journal stores, a thousand would take 46 GB.) The memory is that of a journal with as
many files. The page cache is warm, so the seconds measure arithmetic and not the disk. Each row is a
separate process. Memory excludes pages of the mapped file, which the system can reclaim.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from threading import Event, Thread

from command import ended, options, positive, printed

LAYERS, WIDTH, INNER, RANK = 32, 4096, 11008, 8


def block(dtype: str):
    """LoRA of rank 8 on gate, up and down of every layer: 11.6 million numbers."""
    import torch

    kind, noise = getattr(torch, dtype), torch.Generator().manual_seed(0)
    shapes = {"gate_proj": (WIDTH, INNER), "up_proj": (WIDTH, INNER), "down_proj": (INNER, WIDTH)}
    found = {}
    for layer in range(LAYERS):
        for name, (wide, high) in shapes.items():
            path = f"base_model.model.model.layers.{layer}.mlp.{name}"
            found[f"{path}.lora_A.weight"] = torch.randn(RANK, wide, generator=noise).to(kind)
            found[f"{path}.lora_B.weight"] = torch.randn(high, RANK, generator=noise).to(kind)
    return found


def anonymous() -> float:
    """Megabytes of this process's memory that are not mapped from a file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no RssAnon")


def one(path: Path, count: int) -> dict[str, float]:
    """Average `count` updates in this process; returns its largest growth in megabytes, and seconds."""
    from safetensors import safe_open

    from fcit.methods.base import Method
    from fcit.types import State, Update
    from fcit.weights import StoredParts

    with safe_open(path, "pt") as file:
        keys = list(file.keys())
    updates = [
        Update(client, 1 + client, StoredParts(path, "adapters", keys), {}, {"loss": 0.0})
        for client in range(count)
    ]
    before, most, over = anonymous(), 0.0, Event()

    def look() -> None:
        nonlocal most
        while not over.wait(0.01):
            most = max(most, anonymous())

    watcher = Thread(target=look)
    watcher.start()
    begun = time.monotonic()
    after = Method().aggregate(State(), updates)
    seconds = time.monotonic() - begun
    over.set()
    watcher.join()
    assert set(after.adapters) == {"0"}
    return {"updates": count, "grown_mb": round(most - before, 1), "seconds": round(seconds, 2)}


def main() -> int:
    """Print one row for each number of updates."""
    parser = options(__doc__)
    parser.add_argument("--updates", type=positive, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        print(json.dumps(one(Path(asked.inside[0]), int(asked.inside[1]))))
        return 0
    from fcit.weights import nbytes, save

    with tempfile.TemporaryDirectory(dir=asked.out) as folder:
        path, weights = Path(folder) / "update.safetensors", block(asked.dtype)
        save(path, {f"adapters/0/{name}": value for name, value in weights.items()}, durable=False)
        print(f"one update: {nbytes(weights) / 1e6:.1f} MB in {asked.dtype}\n")
        print("| updates | memory grown by, MB | seconds |\n|---|---|---|")
        for count in asked.updates:
            command = [sys.executable, __file__, "--inside", str(path), str(count)]
            row = json.loads(printed(command))
            print(f"| {row['updates']} | {row['grown_mb']} | {row['seconds']} |", flush=True)
    return 0


if __name__ == "__main__":
    ended(main)
