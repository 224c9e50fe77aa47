"""How large the merged LoRAs of a finished run are, compared with the base weights they are added to.

    .venv/bin/python benchmarks/norms.py RUN [RUN ...]

For runs with several adapters (hide, disco, olora). Each column is a Frobenius norm divided by that of
the layer's base weight, the median and the maximum over the adapted layers:

one       the mean over adapters of scale B_i A_i
sum       scale sum_i B_i A_i: hide's `merge = "sum"`
mean      scale mean_i B_i A_i: `merge = "mean"`
factors   scale (sum_i B_i) (sum_i A_i), as HiDe-LLaVA's published code merges
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

from command import ended, options
from torch import Tensor

from fcit import Run
from fcit.types import FcitError
from fcit.weights import factors

MERGES = ("one", "sum", "mean", "factors")


def main() -> None:
    """Print one row per run."""
    parser = options(__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    folders = parser.parse_args().runs
    print(f"| run | adapters | {' | '.join(MERGES)} |\n|---|---:|{'---:|' * len(MERGES)}")
    for folder in folders:
        print(row(folder), flush=True)


def row(folder: Path) -> str:
    """A run's row of the table."""
    run = Run(folder)
    blocks = [factors(block) for block in run.state.adapters.values()]
    if len(blocks) < 2:
        raise FcitError(f"{folder}: has {len(blocks)} adapters; a merge needs two")
    scale = run.config.method.scale
    layers = run.worker.model.subspaces.layers
    found = [
        sizes([block[path] for block in blocks], layer.base.weight.float(), scale)
        for path, layer in layers.items()
    ]
    cells = []
    for merge in MERGES:
        values = [each[merge] for each in found]
        cells.append(f"{median(values):.3g} (max {max(values):.3g})")
    return f"| {folder} | {len(blocks)} | {' | '.join(cells)} |"


def sizes(pairs: Sequence[tuple[Tensor, Tensor]], weight: Tensor, scale: float) -> dict[str, float]:
    """A layer's norms for its adapters' A [r, in] and B [out, r], as shares of the weight's."""
    deltas = [scale * b @ a for a, b in pairs]
    total = sum(deltas[1:], start=deltas[0])
    down = sum((a for a, _ in pairs[1:]), start=pairs[0][0])
    up = sum((b for _, b in pairs[1:]), start=pairs[0][1])
    norms = {
        "one": fmean(float(delta.norm()) for delta in deltas),
        "sum": float(total.norm()),
        "mean": float(total.norm()) / len(pairs),
        "factors": float((scale * up @ down).norm()),
    }
    return {merge: norm / float(weight.norm()) for merge, norm in norms.items()}


if __name__ == "__main__":
    ended(main)
