"""How many test prompts DISCO's two routers send to their own dataset's subspace, where clients add noise
to their tokens.

    .venv/bin/python benchmarks/router_noise.py [--recipe recipes/mini/task-hom.toml] [--seed 101]

Every client of every dataset makes its token and adds N(0, t^2) to each of its numbers. The server
averages them by sample count, one subspace for each dataset. Features have length 1. No model is trained.
In a run the server refuses tokens with a negative variance, which noise makes; here it does not.
"""

from __future__ import annotations

from pathlib import Path

import torch
from command import ended, options

from fcit.methods.gating import Query
from fcit.recipe import config
from fcit.rounds.client import identify
from fcit.seeds import torch_stream
from fcit.types import Identity, State, Task, Turn
from fcit.watch import Terminal
from fcit.worker.model import ModelWorker

ROOT = Path(__file__).parents[1]
NOISE = (0.0, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)


def routed(recipe: Path, seed: int, router: str) -> list[float]:
    """Percent of the test prompts that are routed right, for each amount of noise."""
    changes = [f"seed={seed}", "data.size=tiny", f'method.router="{router}"']
    worker = ModelWorker(config.load(recipe, changes, "disco"))
    experiment, method, encoder = worker.experiment, worker.method, worker.encoder
    experiment.prepare(Terminal())
    tokens: list[list[Identity]] = []
    queries: list[torch.Tensor] = []
    for name in experiment.setting.datasets:
        task = Task(name, (name,))
        shares = enumerate(experiment.shares(task))
        tokens.append(
            [
                identify(method, encoder, Turn(client, task, 0, 0), experiment.data_of(samples))
                for client, samples in shares
                if samples
            ]
        )
        test = experiment.samples(name, "test")
        prompts = [sample.prompt for sample in test]
        queries.append(encoder.embed(method.identity, prompts, experiment.data_of(test).images))
    counts = torch.tensor([sum(one.samples for one in own) for own in tokens])
    found = []
    for noise in NOISE:
        means = []
        for own, total in zip(tokens, counts, strict=True):
            draws = (torch_stream(seed, "router noise", one.task, one.client) for one in own)
            noisy = [
                one.token + noise * torch.randn(one.token.shape, generator=draw)
                for one, draw in zip(own, draws, strict=True)
            ]
            means.append(
                sum(token * one.samples for token, one in zip(noisy, own, strict=True)) / total
            )
        state = State({}, {"identity": {"tokens": torch.stack(means), "samples": counts}})
        scores = [
            (method.similarities(state, Query("", row)), at)
            for at, rows in enumerate(queries)
            for row in rows
        ]
        right = sum(max(one, key=one.__getitem__) == str(at) for one, at in scores)
        found.append(100 * right / len(scores))
    return found


def main() -> None:
    """Print the table."""
    parser = options(__doc__)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "mini" / "task-hom.toml")
    parser.add_argument("--seed", type=int, default=101)
    given = parser.parse_args()
    columns = [routed(given.recipe, given.seed, router) for router in ("cosine", "discriminant")]
    print("| noise t per number | cosine | discriminant |\n|---|---:|---:|")
    for noise, *percents in zip(NOISE, *columns, strict=True):
        print(f"| {noise:g} | {' | '.join(f'{percent:.1f}' for percent in percents)} |")


if __name__ == "__main__":
    ended(main)
