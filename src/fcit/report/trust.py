"""What runs say of faults and of privacy, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fcit.report.read import Run


@dataclass(frozen=True)
class Trouble:
    """A fault, or a rule that could not be kept to: of which run, when (from 1), and what it was."""

    run: str
    stage: int
    round: int
    what: str


def troubles(runs: Sequence[Run]) -> list[Trouble]:
    """Everything that clients did wrong, and every time that the server fell back to another rule."""
    return [
        Trouble(run.path.name, one.stage, one.round, what)
        for run in runs
        for one in run.rounds
        for what in (
            *(f"client {client}, {kind}: {detail}" for client, kind, detail in one.faults),
            *one.notes,
        )
    ]


def spent(run: Run) -> str:
    """The epsilon of a run with privacy."""
    return (
        f"{run.path.name}: ε = {_shown(run, 'epsilon')} at δ = {run.privacy['delta']:g} "
        f"(updates {_shown(run, 'epsilon_updates')}, "
        f"identity tokens {_shown(run, 'epsilon_tokens')})."
    )


def _shown(run: Run, key: str) -> str:
    value = run.privacy.get(key)
    return "unbounded" if value is None else f"{value:.2f}"
