"""The lines of `log.jsonl`: what a round did, and what it cost."""

from dataclasses import asdict
from typing import Any

from fcit.rounds.server import Position, Round
from fcit.weights import nbytes


def line(position: Position, report: Round, seconds: float) -> dict[str, Any]:
    """A round's line; lists run over its accepted clients. seconds: what the round took."""
    tokens = {identity.client: nbytes({"token": identity.token}) for identity in report.identities}
    jobs, updates = report.jobs, report.updates
    row: dict[str, Any] = {
        "stage": position.stage + 1,
        "round": position.rounds,
        "clients": [job.turn.client for job in jobs],
        "tasks": [job.turn.task.name for job in jobs],
        "samples": [update.samples for update in updates],
        "losses": [round(update.metrics["loss"], 5) for update in updates],
        "subspaces": [",".join(update.adapters) for update in updates],
        "seconds": round(seconds, 3),
        "bytes_down": list(report.bytes_down),
        "bytes_up": [
            size + tokens.get(update.client, 0)
            for update, size in zip(updates, report.bytes_up, strict=True)
        ],
        "bytes_token": [tokens.get(update.client, 0) for update in updates],
    }
    if report.faults:
        row["faults"] = [asdict(fault) for fault in report.faults]
    if report.notes:
        row["notes"] = list(report.notes)
    return row
