"""Flower's SuperLink with a doorkeeper: only nodes may call from other machines.

Flower 1.41 answers nodes, operators and its own apps on one port, and knows keys of nodes only: whoever
reaches the port could register a key of his own, or start a run on all nodes. So what is not for nodes
is for this machine alone. Started by the `start` that `fcit deploy init` writes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from flwr.superlink import extensions
from flwr.superlink.cli.flower_superlink import flower_superlink
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

FOR_NODES = ("/v1/fleet/", "/health")


class Doorkeeper:
    """Refuses calls from other machines to anything but what nodes need."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or may_enter(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            answer = PlainTextResponse("only for the server's own machine\n", 403)
            await answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})


def may_enter(scope: Mapping[str, Any]) -> bool:
    """Whether a call is one of a node's, or comes from this machine."""
    if any(scope["path"].startswith(path) for path in FOR_NODES):
        return True
    try:
        return ipaddress.ip_address((scope.get("client") or ("",))[0]).is_loopback
    except ValueError:
        return False


def main() -> None:
    """Run the SuperLink; arguments are those of `flower-superlink`."""
    before = extensions.get_middleware
    extensions.get_middleware = lambda: (Middleware(Doorkeeper), *before())
    flower_superlink()


if __name__ == "__main__":
    main()
