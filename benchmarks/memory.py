"""Compare `fcit plan`'s memory estimate with a real client's turn, for a random model on a CPU.

    .venv/bin/python benchmarks/memory.py [--hidden 1024] [--depth 20] [--batch 8] [--checkpointing]

Writes a LLaVA-shaped model with random weights (327 million parameters by default) to a temporary
folder and trains one turn of DISCO with it in a separate process. Prints the peak of its resident
memory, without that of the interpreter and its imports, beside the estimate.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from command import ended, options, positive, printed

MEASURED = "memory "
"""What the measuring process's line begins with."""


def main() -> None:
    """Make the model, train, compare."""
    parser = options(__doc__)
    parser.add_argument("--hidden", type=positive, default=1024)
    parser.add_argument("--depth", type=positive, default=20)
    parser.add_argument("--batch", type=positive, default=8)
    parser.add_argument("--micro-batch", type=int, default=0)
    parser.add_argument("--steps", type=positive, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(MEASURED + json.dumps(turn(json.loads(given.inside))))
        return
    if given.hidden % 64:
        parser.error("--hidden: must be a multiple of 64, the width of a head")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write(place / "model", given.hidden, given.depth)
        table = recipe(place, given)
        os.environ["FCIT_CACHE"] = str(place / "cache")
        said = printed([sys.executable, __file__, "--inside", json.dumps(table)])
        line = next(one for one in said.splitlines() if one.startswith(MEASURED))
        compare(table, json.loads(line.removeprefix(MEASURED)))


def recipe(place: Path, given: argparse.Namespace) -> dict:
    """A recipe with one stage, one round and one client, whose turn has the requested number of
    steps."""
    from fcit import suite as mini

    mini.write(place / "data", 0, given.batch * given.steps, 1, ["Flickr30k"])
    return {
        "data": {"root": str(place / "data")},
        "model": {
            "path": str(place / "model"),
            "device": "cpu",
            "dtype": given.dtype,
            "cache_features": False,
        },
        "setting": {"name": "task-hom", "order": ["Flickr30k"]},
        "federation": {"clients": 1, "per_round": 1, "rounds": 1, "workers": 1},
        "training": {
            "batch_size": given.batch,
            "micro_batch": given.micro_batch,
            "checkpointing": given.checkpointing,
            "threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
        },
    }


def write(folder: Path, hidden: int, depth: int) -> None:
    """Write a model with random weights and the mini model's tokenizer and image processor."""
    from transformers import (
        AutoProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    from fcit.models import CHECKPOINTS
    from fcit.seeds import lent

    processor = AutoProcessor.from_pretrained(CHECKPOINTS / "mini-lmm", backend="pil")
    config = LlavaConfig.from_pretrained(CHECKPOINTS / "mini-lmm")
    config.vision_config = CLIPVisionConfig(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
        image_size=48, patch_size=8, projection_dim=128,
    )  # fmt: skip
    config.text_config = LlamaConfig(
        vocab_size=32000, hidden_size=hidden, intermediate_size=hidden * 11 // 4,
        num_hidden_layers=depth, num_attention_heads=hidden // 64, max_position_embeddings=512,
    )  # fmt: skip
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    with lent(0, "memory"):
        model = LlavaForConditionalGeneration(config)
    print(f"{sum(value.numel() for value in model.parameters()):,} parameters")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def turn(table: dict) -> dict[str, int]:
    """Train one client's turn; returns resident bytes before anything is loaded, and at the peak."""
    from fcit.models import identity, lmm
    from fcit.models.size import encoder_size, model_size
    from fcit.planning.rehearsal import rehearse
    from fcit.recipe.config import validate
    from fcit.worker.model import ModelWorker

    assert identity and lmm
    site = ModelWorker(validate(table))
    before = resident("VmRSS")
    shape = model_size(site.experiment.model_path())
    job = rehearse(site.experiment, shape, encoder_size(site.experiment.identity_path())[0])[-1]
    site.identify(job.last.turn)
    site.train(job.last, {})
    return {"before": before, "peak": resident("VmHWM")}


def resident(key: str) -> int:
    """This process's resident memory in bytes: current (VmRSS) or peak (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status has no {key}; this benchmark needs Linux")


def compare(table: dict, found: dict[str, int]) -> None:
    """Print the parts of the estimate, and what was measured."""
    from fcit.planning import plan
    from fcit.recipe.config import validate

    parts = plan(validate(table)).memory
    for name, value in parts.items():
        print(f"{name:24}{value / 1e6:10.1f} MB")
    predicted, measured = sum(parts.values()), found["peak"] - found["before"]
    print(f"{'predicted':24}{predicted / 1e6:10.1f} MB")
    print(f"{'measured':24}{measured / 1e6:10.1f} MB (baseline {found['before'] / 1e6:.0f} MB)")
    print(f"predicted / measured = {predicted / measured:.3f}")


if __name__ == "__main__":
    ended(main)
