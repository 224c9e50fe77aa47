"""Flower's SuperLink behind a filter: other machines may only call what nodes need.

Flower 1.41 serves nodes, operators and its own apps on one port, and checks the keys of nodes only. So
anyone who reaches the port could register a key or start a run on all nodes. Here all other paths are
open to this machine alone. The script `start` that `fcit deploy init` writes runs this module.
"""

import ipaddress
from collections.abc import Mapping
from typing import Any

from flwr.superlink import extensions
from flwr.superlink.cli.flower_superlink import flower_superlink
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

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
    try:
        return ipaddress.ip_address((scope.get("client") or ("",))[0]).is_loopback
    except ValueError:
        return False


def main() -> None:
    """Run the SuperLink; arguments are those of `flower-superlink`."""
    before = extensions.get_middleware
    extensions.get_middleware = lambda: (Middleware(NodesOnly), *before())
    flower_superlink()


if __name__ == "__main__":
    main()
