"""Last of the mini suite's task-hom with 20 clients per round: with malicious clients, and with privacy
noise.

    .venv/bin/python benchmarks/attacks.py [--seeds 0 1 2] [--method disco] [--out runs/attacks]
        [--byzantine 0 0.1 0.2] [--times 1 10] [--rules mean median trimmed krum] [--noise 0.1 0.3 1]
        [--set key=value ...]

A malicious client sends x - times (y - x) instead of y, where x is what it received. Finished runs are
read, interrupted ones continue. The tables go to standard output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, ClassVar
from unittest import mock

from command import ended, options

from fcit.engines.local import LocalEngine
from fcit.recipe import config
from fcit.rounds.runfolder import RunFolder
from fcit.runs.api import Run, run
from fcit.seeds import numpy_stream
from fcit.types import Fault, FcitError, Job, State, Update
from fcit.watch import Terminal

RECIPE = Path(__file__).parents[1] / "recipes" / "mini" / "task-hom.toml"
FEDERATION = (
    "data.size=tiny",
    "federation.clients=40",
    "federation.per_round=20",
    "federation.min_samples=4",
)


def flipped(update: Update, received: State, times: float) -> Update:
    """The update with x - times (y - x) for everything that was trained."""

    def turned(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: {
                key: theirs[name][key] - times * (value - theirs[name][key])
                for key, value in weights.items()
            }
            for name, weights in mine.items()
        }

    adapters = turned(update.adapters, received.adapters)
    return replace(update, adapters=adapters, extras=turned(update.extras, received.extras))


def attacked(share: float, times: float) -> Any:
    """A local engine in which a share of the clients, drawn by the run's seed, flips the sign of their
    updates and multiplies them by `times`."""

    class Attacked(LocalEngine):
        flips: ClassVar[int] = 0

        def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
            clients = self.config.federation.clients
            order = numpy_stream(self.config.seed, "liars").permutation(clients)
            malicious = {int(client) for client in order[: round(share * clients)]}
            received = {job.turn.client: job.received for job in jobs}
            for reply in super().run(jobs):
                attacks = isinstance(reply, Update) and reply.client in malicious
                Attacked.flips += attacks
                yield flipped(reply, received[reply.client], times) if attacks else reply

    return Attacked


def measured(
    out: Path, changes: Sequence[str], method: str, share: float = 0.0, times: float = 1.0
) -> dict[str, Any]:
    """A run's matrix.json, from a finished run or from a new one."""
    made = config.load(RECIPE, [*FEDERATION, *changes], method)
    malicious = round(share * made.federation.clients)
    if share and not malicious:
        raise FcitError(f"--byzantine {share:g}: is none of {made.federation.clients} clients")
    if malicious and made.federation.wire != "float32":
        raise FcitError(
            f"federation.wire = {made.federation.wire}: attacks need float32; the other forms send "
            "changes instead of weights"
        )
    engine, begun = attacked(share, times), RunFolder(out).begun()
    with mock.patch("fcit.engines.local.LocalEngine", engine):
        done: Run = run(made, out, resume=begun, watch=Terminal())
    assert begun or bool(engine.flips) == bool(malicious)
    return done.results


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation."""
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def main() -> int:
    """Run what is missing and print both tables."""
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--method", default="disco")
    parser.add_argument("--out", type=Path, default=Path("runs/attacks"))
    parser.add_argument("--byzantine", type=float, nargs="*", default=[0.0, 0.1, 0.2])
    parser.add_argument("--times", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--rules", nargs="+", default=["mean", "median", "trimmed", "krum"])
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--noise", type=float, nargs="*", default=[0.0, 0.01, 0.1, 0.3, 1.0])
    parser.add_argument("--token-noise", type=float, default=0.0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()

    def row(name: str, changes: Sequence[str], *attack: float) -> list[dict[str, Any]]:
        return [
            measured(
                asked.out / f"{asked.method}-{name}-seed{seed}",
                [f"seed={seed}", *changes, *asked.set],
                asked.method,
                *attack,
            )
            for seed in asked.seeds
        ]

    print(f"task-hom/tiny, {asked.method}, seeds {asked.seeds}: Last\n")
    print("| malicious clients | their update times | " + " | ".join(asked.rules) + " |")
    print("|---" * (len(asked.rules) + 2) + "|")
    for share, times in product(asked.byzantine, asked.times):
        if not share and times != asked.times[0]:
            continue  # without malicious clients the factor has no effect
        name = f"{share:g}" + f"-times{times:g}" * (share > 0)
        cells = [
            spread(
                [
                    one["last"]
                    for one in row(f"{rule}-{name}", [f"federation.robust={rule}"], share, times)
                ]
            )
            for rule in asked.rules
        ]
        print(
            f"| {share:.0%} | {f'-{times:g}' if share else ''} | {' | '.join(cells)} |", flush=True
        )
    print(f"\nclip {asked.clip:g}, noise on tokens {asked.token_noise:g}\n")
    print("| noise | epsilon of updates | epsilon of tokens | Last |\n|---|---|---|---|")
    for noise in asked.noise:
        changes = [
            f"privacy.clip_norm={asked.clip}",
            f"privacy.noise_multiplier={noise}",
            "federation.outlier_factor=0",
        ]
        changes.append(f"privacy.token_noise={asked.token_noise}")
        found = row(f"clip{asked.clip:g}-{noise:g}-{asked.token_noise:g}", changes)
        spent = found[0]["privacy"]
        shown = ["none" if spent[k] is None else f"{spent[k]:.1f}" for k in KEYS]
        print(f"| {noise:g} | {' | '.join(shown)} | {spread([x['last'] for x in found])} |")
    return 0


KEYS = ("epsilon_updates", "epsilon_tokens")

if __name__ == "__main__":
    ended(main)
