"""What `flwr run` loads (see [tool.flwr.app] of a pyproject.toml): a session behind Flower's apps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcit.aggregation.privacy import secret_noise
from fcit.flower.apps import Build, client_app, server_app
from fcit.recipe import config as configs
from fcit.runs.session import Session
from fcit.types import FcitError


class Lines:
    """Tells Flower's log one line at a time, and draws no bars in it."""

    def say(self, text: str) -> None:
        """Print one line of news."""
        print(text, flush=True)

    def bar(self, label: str, total: int):
        """Say what begins."""
        from fcit.watch import Silent

        self.say(f"{label}: {total}")
        return Silent().bar(label, total)


def run(given: Mapping[str, Any], build: Build) -> None:
    """Run a recipe, or go on with its run: `given` is Flower's run config, with the paths `recipe`
    and `out`, and `changes`, which are key=value separated by spaces (method=NAME is --method)."""
    for key in ("recipe", "out"):
        if not given.get(key):
            raise FcitError(f"--run-config: {key} is missing; it must name a path on the server")
    out = Path(str(given["out"])).expanduser()
    changes = str(given.get("changes", "")).split()
    methods = [one.removeprefix("method=") for one in changes if one.startswith("method=")]
    others = [one for one in changes if not one.startswith("method=")]
    config = configs.load(
        Path(str(given["recipe"])).expanduser(),
        [*others, "federation.engine=flower"],
        methods[-1] if methods else None,
    )
    secret_noise(config.privacy.build())
    session = Session(config, out, Lines(), build)
    session.open(resume=session.folder.begun())
    # no partition.json: who holds what is the clients' own, and so is all data where they score
    session.prepare(partition=False, data=config.evaluation.where == "server")
    session.run()
    Lines().say(f"run folder: {out}")


server = server_app(run)
client = client_app()
