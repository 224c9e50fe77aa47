"""Flower's SuperNode, after a look at what a client brings along: key, data, clock. The script `start` of
a client runs this module; its arguments are those of `flower-supernode`."""

import os
import re
import signal
import sys
import threading
from pathlib import Path

from flwr.common.config import parse_config_args
from flwr.supercore.exit.exit_handler import trigger_exit_handlers
from flwr.supernode.cli.flower_supernode import flower_supernode

from fcit.engines.node import LocalClient, check_data
from fcit.flower.apps import FLOOR, own_client
from fcit.flower.machine import (
    arguments,
    ask,
    in_one_line,
    require_clock,
    require_owner,
    require_port,
)
from fcit.recipe.config import load
from fcit.types import FcitError, one_line
from fcit.worker.experiment import Experiment

RECIPE = Path("recipe.toml")
"""The recipe that the server begins with, in a client's folder."""

PAIR = re.compile(r"""\S+?=('[^']*'|"[^"]*"|\S+)""")
"""What Flower 1.41 takes for an entry of a node's configuration; it ignores all else."""


def main() -> None:
    """Check, and then connect until this process is ended."""
    given = arguments(
        "superlink", "root-certificates", "auth-supernode-private-key", "port", "node-config"
    )
    require_pairs(given.node_config)
    client = own_client(parse_config_args([given.node_config]))
    values = ", ".join(f"{key} = {getattr(client.floor, key):g}" for key in FLOOR)
    print(f"client {client.number}'s own minimum of protection: {values}", flush=True)
    require_owner(given.auth_supernode_private_key)
    check_data(Experiment(load(RECIPE, foreign=True), client.own), client.number)
    require_port("127.0.0.1", int(given.port))
    certificate = Path(given.root_certificates)
    try:
        require_clock(ask(given.superlink, certificate))
    except ConnectionError as error:
        print(f"{error}; retrying until it answers", flush=True)
    broken = end_with_threads()
    try:
        flower_supernode()
        broken.set()  # it returns only where its connection broke
    except SystemExit as left:
        if left.code:
            broken.set()
    finally:
        # Else the thread of its HTTP server would keep this process alive.
        trigger_exit_handlers(run_before_force_exit=False)
    if broken.is_set():
        raise FcitError(told(client, given.superlink, certificate))


def require_pairs(node_config: str) -> None:
    """Raise FcitError for what is no key=value: a client's own protection must not be lost in silence."""
    if rest := PAIR.sub("", node_config).split():
        raise FcitError(
            f"--node-config: {' '.join(rest)!r} is not key=value; write no spaces around = "
            "(FCIT_NODE_CONFIG)"
        )


def end_with_threads() -> threading.Event:
    """End this process where one of Flower's threads fails, so that its unit starts it again: without
    the thread that sends heartbeats it would live on and count as gone. Returns what is set then."""
    broken = threading.Event()

    def end(thread: threading.ExceptHookArgs) -> None:
        if thread.exc_type is SystemExit:
            return
        broken.set()
        error = one_line(f"{thread.exc_type.__name__}: {thread.exc_value}")
        print(f"error: a thread of Flower's ended: {error}", file=sys.stderr, flush=True)
        if callable(signal.getsignal(signal.SIGTERM)):  # else Flower is ending already
            os.kill(os.getpid(), signal.SIGTERM)

    threading.excepthook = end
    return broken


def told(client: LocalClient, address: str, certificate: Path) -> str:
    """Why a client may not have stayed connected, and what to do."""
    try:
        require_clock(ask(address, certificate))
    except (FcitError, ConnectionError) as error:
        return str(error)
    return (
        f"client {client.number} is no longer connected (the lines above say why); if the SuperLink did "
        "not activate it, wait a minute and start it again (until then the SuperLink counts a killed "
        "client as connected), or register its key on the server: "
        f"./register clients/client-{client.number}.pub"
    )


if __name__ == "__main__":
    in_one_line(main)
