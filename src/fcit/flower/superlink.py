"""Flower's SuperLink behind a filter: other machines may only call what nodes need.

Flower 1.41 serves nodes, operators and its own apps on one port, and checks the keys of nodes only. So
anyone who reaches the port could register a key or start a run on all nodes. Here all other paths are
open to this machine alone. The script `start` that `fcit deploy init` writes runs this module.
"""

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography import x509
from flwr.superlink import extensions
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan, flower_superlink
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fcit.files import write_text
from fcit.flower.deploy import OWN_NAMES
from fcit.flower.machine import arguments, in_one_line, require_owner, require_port
from fcit.flower.operate import ENDED
from fcit.types import FcitError, one_line

NODE_PATHS = ("/v1/fleet/", "/health")


class NodesOnly:
    """Refuses calls from other machines to any path that nodes do not need."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or is_allowed(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            refusal = PlainTextResponse("only allowed from the server's own machine\n", 403)
            await refusal(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


def is_allowed(scope: Mapping[str, Any]) -> bool:
    """Whether a call is for nodes or comes from this machine."""
    if any(scope["path"].startswith(path) for path in NODE_PATHS):
        return True
    caller, own = ((scope.get(side) or ("",))[0] for side in ("client", "server"))
    try:
        return ipaddress.ip_address(caller).is_loopback or caller == own
    except ValueError:
        return False


class Watched(SuperLinkLifespan):
    """Ends the SuperLink where Flower's SuperExec ends, which starts runs: nothing else would say so."""

    def _start_superexec_if_needed(self) -> None:
        super()._start_superexec_if_needed()
        if process := self.superexec_process:
            threading.Thread(target=self._follow, args=(process,), daemon=True).start()

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        last = deque[str](maxlen=20)

        def copy() -> None:
            for line in process.stderr or ():
                sys.stderr.buffer.write(line)
                sys.stderr.buffer.flush()
                last.append(line.decode(errors="replace").strip())

        threading.Thread(target=copy, daemon=True).start()
        code = process.wait()
        if self._started and self.superexec_process is process:
            threading.Event().wait(1.0)  # for its last lines
            lines = [line for line in last if line and "INFO" not in line]
            said = lines[-1] if lines else "it said nothing"
            reason = one_line(f"Flower's SuperExec exited with status {code}: {said}")
            write_text(ENDED, reason + "\n")
            print(f"error: {reason}", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)


def require_name(host: str, certificate: Path) -> None:
    """Raise FcitError where the certificate would not be valid for the address to listen on: SuperExec
    reaches the SuperLink there."""
    names = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions
    known = names.get_extension_for_class(x509.SubjectAlternativeName).value
    valid = {str(name.value) for name in known} | {"0.0.0.0", "::"}
    if host not in valid:
        raise FcitError(
            f"FCIT_HOST: {certificate.name} is not valid for {host}, only for "
            f"{', '.join(sorted(valid))}; choose one of these, or run fcit deploy init with --host {host}"
        )


def require_reachable(host: str) -> None:
    """Raise FcitError where the machine's own name is an address that other machines cannot reach, as in
    the /etc/hosts of Debian and Ubuntu."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = [str(address[0]) for *_, address in found]
    if host not in OWN_NAMES and all(ipaddress.ip_address(each).is_loopback for each in addresses):
        raise FcitError(
            f"{host} is {addresses[0]} on this machine (/etc/hosts), where no other machine can connect; "
            "set FCIT_HOST to the machine's address, or to 0.0.0.0"
        )


def main() -> None:
    """Run the SuperLink; arguments are those of `flower-superlink`."""
    given = arguments("host", "port", "ssl-certfile", "ssl-keyfile")
    require_owner(given.ssl_keyfile)
    require_name(given.host, Path(given.ssl_certfile))
    require_port(given.host, int(given.port))
    require_reachable(given.host)
    ENDED.unlink(missing_ok=True)
    flower = sys.modules[SuperLinkLifespan.__module__]
    middleware, kwargs = extensions.get_middleware, flower.get_popen_detach_kwargs
    extensions.get_middleware = lambda: (Middleware(NodesOnly), *middleware())
    vars(flower)["SuperLinkLifespan"] = Watched
    vars(flower)["get_popen_detach_kwargs"] = lambda: kwargs() | {"stderr": subprocess.PIPE}
    flower_superlink()


if __name__ == "__main__":
    in_one_line(main)
