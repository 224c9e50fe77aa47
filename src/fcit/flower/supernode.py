"""Flower's SuperNode, after a look at what a client brings along: key, data, clock. The script `start` of
a client runs this module; its arguments are those of `flower-supernode`."""

from pathlib import Path

from flwr.common.config import parse_config_args
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
from fcit.types import FcitError
from fcit.worker.experiment import Experiment

RECIPE = Path("recipe.toml")
"""The recipe that the server begins with, in a client's folder."""


def main() -> None:
    """Check, and then connect until this process is ended."""
    given = arguments(
        "superlink", "root-certificates", "auth-supernode-private-key", "port", "node-config"
    )
    client = own_client(parse_config_args([given.node_config]))
    values = ", ".join(f"{key} = {getattr(client.floor, key):g}" for key in FLOOR)
    print(f"client {client.number}'s own minimum of protection: {values}", flush=True)
    require_owner(given.auth_supernode_private_key)
    check_data(Experiment(load(RECIPE), client.own), client.number)
    require_port("127.0.0.1", int(given.port))
    certificate = Path(given.root_certificates)
    try:
        require_clock(ask(given.superlink, certificate))
    except ConnectionError as error:
        print(f"{error}; retrying until it answers", flush=True)
    try:
        flower_supernode()
    except SystemExit as left:
        if left.code:
            raise FcitError(told(client, given.superlink, certificate)) from None


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
