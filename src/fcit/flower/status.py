"""What a deployed run is doing, for its operator: a line for every round, and what `./status` shows."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

from fcit.files import read_json, write_json
from fcit.rounds.runfolder import RunFolder
from fcit.types import FcitError, Turn, first_line

FILE, FINISHED = "status.json", "finished"

CONTINUE = "./run continues it"

GRACE = 60.0
"""Seconds after which the log names clients that are not ready: not connected, or still looking at their
data."""


class Status:
    """Says what happens and writes it into the run's folder. plan: see `schedule.plan`."""

    def __init__(
        self,
        folder: Path,
        plan: Sequence[Sequence[Sequence[Turn]]],
        say: Callable[[str], None],
    ):
        self.file, self.plan, self.say = folder / FILE, plan, say
        self.now: dict[str, Any] = {}
        self.since, self.named = 0.0, ""

    def begin(self, what: str, clients: Sequence[int], deadline: float, after: str) -> None:
        """Something begins that these clients must have answered within `deadline` seconds."""
        self.since, self.named, now = time.monotonic(), "", datetime.now(UTC)
        until = now + timedelta(seconds=deadline)
        self.now = {"now": what, "since": _clock(now), "next": after, "clients": sorted(clients)}
        if clients:
            self.now |= {"until": _clock(until), "at_work": [], "not_ready": sorted(clients)}
        write_json(self.file, self.now)

    def begin_round(self, what: str, turns: Sequence[Turn], deadline: float) -> None:
        """A round's clients are asked for something."""
        stage, number = turns[0].stage, turns[0].round
        rounds = self.plan[stage]
        after = f"the test sets after stage {stage + 1} of {len(self.plan)}"
        if number + 1 < len(rounds):
            clients = ", ".join(str(turn.client) for turn in rounds[number + 1])
            after = f"{self._name(stage, number + 1)}, with clients {clients}"
        clients = [turn.client for turn in turns]
        self.begin(f"{self._name(stage, number)}: {what}", clients, deadline, after)

    def end_round(self, losses: Sequence[float]) -> None:
        """A round's clients have answered, these with an update, or have not."""
        known = [loss for loss in losses if isinstance(loss, float)]
        loss = f", mean loss {fmean(known):.4g}" if known else ""
        took = time.monotonic() - self.since
        what = f"{len(losses)} of {len(self.now['clients'])} clients answered"
        self.say(f"{self.now['now']}: {what}{loss}, {took:.0f} s; next: {self.now['next']}")

    def awaits(
        self, at_work: Sequence[int], not_ready: Sequence[int], refused: Sequence[str]
    ) -> None:
        """Who has not answered yet; `refused`: why connected nodes are no clients of the run."""
        now = self.now | {
            "at_work": sorted(at_work),
            "not_ready": sorted(not_ready),
            "refused": list(refused),
        }
        if now != self.now:
            self.now = now
            write_json(self.file, now)
        away = ", ".join(map(str, sorted(not_ready)))
        if away not in ("", self.named) and time.monotonic() > self.since + GRACE:
            self.named = away
            reasons = "".join(f" ({reason})" for reason in refused)
            self.say(
                f"waiting until {now['until']} for clients not connected or ready: {away}{reasons}"
            )

    def end(self, error: BaseException | None) -> None:
        """The run is finished, or has ended with an error."""
        what = FINISHED if error is None else f"ended: {first_line(error)}"
        if isinstance(error, SystemExit | KeyboardInterrupt):
            what = "stopped"
        self.now = {"now": what, "since": _clock(datetime.now(UTC))}
        write_json(self.file, self.now)

    def _name(self, stage: int, number: int) -> str:
        return f"stage {stage + 1}, round {number + 1} of {len(self.plan[stage])}"


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def mark_finished(folder: Path) -> None:
    """Say that a run is finished, also one whose server was killed before it could."""
    file = folder / FILE
    if not file.is_file() or read_json(file).get("now") != FINISHED:
        write_json(file, {"now": FINISHED, "since": _clock(datetime.now(UTC))})
    file.touch()


def finished(folder: Path, begun: float) -> bool:
    """Whether a run that was begun or continued at this time (in seconds of the epoch) is finished. An
    older status may be from before this attempt."""
    file = folder / FILE
    fresh = file.is_file() and file.stat().st_mtime >= begun - 1
    return fresh and read_json(file).get("now") == FINISHED


def lines(folder: Path) -> list[str]:
    """What a run is doing, to print. Raises FcitError for a file that cannot be read."""
    file = folder / FILE
    if not file.is_file():
        return [f"run: {folder} has not begun; begin it with ./run"]
    now = read_json(file)
    if not isinstance(now, dict) or not isinstance(now.get("now"), str):
        raise FcitError(f"{file}: not a status that fcit wrote; ./run writes it anew")
    told = [f"run: {folder}: {now['now']} (since {now.get('since')})"]
    if now.get("clients"):
        left = {*now["at_work"], *now["not_ready"]}
        answered = [client for client in now["clients"] if client not in left]
        rows = {"answered": answered, "at work": now["at_work"]}
        rows["not connected or not ready"] = now["not_ready"]
        shown = [f"{what}: {', '.join(map(str, who)) or 'none'}" for what, who in rows.items()]
        told.append(f"clients of this round: {'; '.join(shown)}; awaited until {now['until']}")
        told += [f"refused: {reason}" for reason in now.get("refused", ())]
    if now.get("next"):
        told.append(f"next: {now['next']}")
    if now["now"] != FINISHED and not RunFolder(folder).in_use:
        told.append(f"no process works on it now; {CONTINUE}")
    return told
