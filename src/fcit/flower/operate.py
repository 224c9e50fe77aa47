"""What an operator does on the server beside `start`: register keys, run a recipe, see what happens.

The scripts `register`, `run` and `status` that `fcit deploy init` writes run this module in their folder.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from flwr.cli.flower_config import read_superlink_connection
from flwr.cli.supernode.register import try_load_public_key
from flwr.cli.utils import flwr_cli_exc_handler, init_http_client_from_connection
from flwr.proto.control_pb2 import (  # type: ignore[reportAttributeAccessIssue]
    ListNodesRequest,
    RegisterNodeRequest,
    UnregisterNodeRequest,
)

from fcit.files import write_text
from fcit.flower import status
from fcit.flower.machine import ask, in_one_line, require_owner
from fcit.types import FcitError

ENDED = Path("flower/ended.txt")
"""Why the SuperLink's last process ended, where it says so."""

CONNECTION = """[superlink]
default = "fcit"

[superlink.fcit]
address = "{address}"
root-certificates = "{certificate}"
"""


def main() -> None:
    """Do what the first argument says; the second is the server's address, as this machine reaches it."""
    do, address, *given = sys.argv[1:]
    require_owner()
    certificate = Path("server.crt").absolute()
    text = CONNECTION.format(address=address, certificate=certificate)
    write_text(Path("flower/config.toml"), text)
    try:
        ask(address, certificate)
    except ConnectionError as error:
        if do == "status":
            print(*status.lines(Path(given[0])), sep="\n")
        reason = f" (it ended: {ENDED.read_text().strip()})" if ENDED.is_file() else ""
        raise FcitError(f"the SuperLink {error}{reason}; start it with ./start") from None
    if do == "register":
        register(given[1:], Path(given[0]))
    elif do == "status":
        show(Path(given[0]))
    else:
        run(Path(given[0]), given[1:])


def register(arguments: Sequence[str], caller: Path) -> None:
    """Register keys (all of `clients/` where none is named) under the names of their files; a key that
    is registered already stays so. caller: the folder that their paths may start at.

    Raises FcitError for a name that has another key, unless `--replace` is given.
    """
    patterns = [text for text in arguments if text != "--replace"] or ["clients/*.pub"]
    keys: dict[Path, None] = {}
    for pattern in patterns:
        found = (_matches(folder, Path(pattern)) for folder in (caller, Path.cwd()))
        if not (files := next(filter(None, found), [])):
            raise FcitError(f"{pattern}: no such key, neither in {caller} nor in {Path.cwd()}")
        keys |= dict.fromkeys(file.resolve() for file in files)
    for file in keys:
        if not file.read_bytes().startswith(b"ecdsa-sha2-nistp"):
            raise FcitError(f"{file}: no public key of a client (server/clients has one for each)")
    client = init_http_client_from_connection(read_superlink_connection("fcit"))
    with flwr_cli_exc_handler():
        nodes = client.ListNodes(ListNodesRequest()).nodes_info
        current = [node for node in nodes if node.status != "unregistered"]
        for file in keys:
            key, name = try_load_public_key(file), file.stem
            if name in (known := [node.name for node in current if node.public_key == key]):
                print(f"{name}: is registered")
                continue
            if known:
                raise FcitError(f"{file}: this key is registered as {known[0]}")
            for node in [node for node in current if node.name == name]:
                if "--replace" not in arguments:
                    raise FcitError(f"{name} has another key; ./register --replace {file}")
                client.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))
            client.RegisterNode(RegisterNodeRequest(public_key=key, name=name))
            print(f"{name}: registered")


def _matches(folder: Path, pattern: Path) -> list[Path]:
    """The files of this name or pattern, which starts at a folder or is absolute."""
    if (folder / pattern).is_file():
        return [folder / pattern]
    start = Path(pattern.anchor) if pattern.is_absolute() else folder
    matches = start.glob(str(pattern.relative_to(pattern.anchor))) if pattern.name else ()
    return sorted(path for path in matches if path.is_file())


def show(folder: Path) -> None:
    """Print who is connected, and what the run in a folder is doing."""
    client = init_http_client_from_connection(read_superlink_connection("fcit"))
    with flwr_cli_exc_handler():
        nodes = client.ListNodes(ListNodesRequest()).nodes_info
    for node in sorted(nodes, key=lambda node: (len(node.name), node.name)):
        since = {"online": node.last_activated_at, "offline": node.last_deactivated_at}
        words = {"online": "connected since", "offline": "gone since"}
        if node.status in words:
            print(f"{node.name}: {words[node.status]} {since[node.status][:19]} UTC")
        elif node.status == "registered":
            print(f"{node.name}: has never connected")
    if not nodes:
        print("no client is registered; ./register clients/*.pub")
    print(*status.lines(folder), sep="\n")


def run(folder: Path, changes: Sequence[str]) -> None:
    """Run `recipe.toml`, or continue its run, and print its log. Raises FcitError where it did not
    finish."""
    words = " ".join(changes)
    values = {"recipe": Path("recipe.toml").absolute(), "out": folder.absolute(), "changes": words}
    if odd := next((str(value) for value in values.values() if '"' in str(value)), None):
        raise FcitError(f"{odd}: Flower cannot pass quotes on; write this value into recipe.toml")
    given = " ".join(f'{key}="{value}"' for key, value in values.items())
    begun = time.time()
    try:
        words = ["flwr", "run", "app", "fcit", "--stream", "--run-config", given]
        subprocess.run(words, check=False)
    except KeyboardInterrupt:
        print("the run goes on; ./status shows it", file=sys.stderr)
        raise
    if not status.finished(folder, begun):
        reason = f" (the SuperLink ended: {ENDED.read_text().strip()})" if ENDED.is_file() else ""
        raise FcitError(
            f"{folder}: the run did not finish{reason}; mend what the lines above say, then "
            "continue it with ./run"
        )


if __name__ == "__main__":
    os.environ.setdefault("FLWR_LOG_LEVEL", "INFO")
    in_one_line(main)
