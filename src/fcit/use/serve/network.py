"""What protects the server from the network: a listening socket, slow clients, foreign web pages."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import h11
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from fcit.types import FcitError
from fcit.use.serve.requests import Refusal, error_response

HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")

BROWSER_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class Guard:
    """Middleware that refuses foreign host names and requests from other sites' pages (403).

    Allowed are `hosts`, `names`, localhost, and every plain IP address: a page that rebinds its own name
    to this machine is recognized by that name. names: of a proxy in front of the server (host, or
    host:port); pages from there may ask whatever Host the proxy passes on. (Starlette's
    TrustedHostMiddleware knows neither IP addresses nor origins, and answers in plain text.)
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = (), names: Collection[str] = ()):
        self.app, self.names = app, {name.lower() for name in names}
        self.hosts = {host.lower() for host in hosts} | {"localhost"}
        self.hosts |= {name.partition(":")[0] for name in self.names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(BROWSER_HEADERS)
            await send(message)

        refusal = self._refusal(Headers(scope=scope))
        app = error_response(refusal) if refusal else self.app
        await app(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers) -> Refusal | None:
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if not self._is_known(host):
            return Refusal(403, "this server does not have that host name", "host")
        if origin is not None and origin.partition("://")[2].lower() not in (host, *self.names):
            return Refusal(403, "pages of other sites may not use this server", "origin")
        return None

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self.hosts or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def header_timeout(seconds: float) -> type[H11Protocol]:
    """uvicorn's HTTP with a time limit for a request's headers (uvicorn itself waits forever)."""

    class HeaderTimeout(H11Protocol):
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._update_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._update_timer()

        def _update_timer(self) -> None:
            """Start it while headers are awaited, stop it once they are here."""
            if self.conn.their_state is h11.IDLE:
                self.timer = self.timer or self.loop.call_later(seconds, self.transport.close)
            elif self.timer:
                self.timer.cancel()
                self.timer = None

    return HeaderTimeout


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens once the server does. Raises FcitError where the port cannot be had."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        raise FcitError(f"--host {host} --port {port}: cannot listen there: {error}") from None
    return listener
