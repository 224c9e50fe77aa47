"""The apps that `flwr run` loads (see [tool.flwr.app] in pyproject.toml): a session behind Flower."""

from collections.abc import Mapping
from typing import Any

from fcit.aggregation.privacy import secret_noise
from fcit.files import home
from fcit.flower.apps import client_app, server_app
from fcit.flower.status import mark_finished
from fcit.methods import named
from fcit.recipe import config as configs
from fcit.recipe.paths import require_installed
from fcit.runs.engine import Build
from fcit.runs.session import Session
from fcit.types import FcitError
from fcit.watch import Silent


class Lines:
    """Prints news to Flower's log, and no bars."""

    def say(self, text: str) -> None:
        """Print one line."""
        print(text, flush=True)

    def bar(self, label: str, total: int):
        """Print what begins."""
        self.say(f"{label}: {total}")
        return Silent().bar(label, total)


def run(given: Mapping[str, Any], build: Build, deployed: bool = True) -> None:
    """Run a recipe, or continue its run. deployed: whether clients have data of their own.

    given: Flower's run config, with the paths `recipe` and `out`, and `changes`: key=value pairs
    separated by spaces (method=NAME works like --method).
    """
    for key in ("recipe", "out"):
        if not given.get(key):
            raise FcitError(f"--run-config: {key} is missing; it must name a path on the server")
    out = home(str(given["out"]))
    changes = str(given.get("changes", "")).split()
    methods = [text.removeprefix("method=") for text in changes if text.startswith("method=")]
    others = [text for text in changes if not text.startswith("method=")]
    config = configs.load(
        home(str(given["recipe"])),
        [*others, "federation.engine=flower"],
        methods[-1] if methods else None,
    )
    secret_noise(config.privacy)
    if deployed:
        require_installed(named(config.method)["name"], "flwr run")
    session = Session(config, out, Lines(), build, deployed)
    session.open(resume=session.folder.begun())
    session.run()
    mark_finished(out)  # also where it was finished before, and no engine was built
    Lines().say(f"run folder: {out}")


server = server_app(run)
client = client_app()
