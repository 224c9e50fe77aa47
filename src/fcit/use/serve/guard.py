"""What every request passes: no foreign host names or pages, and headers that keep browsers strict."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fcit.use.serve.refusal import Refusal

STRICT = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class Guard:
    """Turns away requests for other hosts than `hosts`, localhost and plain addresses (a page that
    rebinds its own name to this machine shows itself so), and those that pages elsewhere send.

    names: what a proxy in front goes by (host, or host:port where it is an unusual one). Pages from
    there may ask whatever Host the proxy passes on.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = (), names: Collection[str] = ()):
        self.app, self.names = app, {name.lower() for name in names}
        self.hosts = {host.lower() for host in hosts} | {"localhost"}
        self.hosts |= {name.partition(":")[0] for name in self.names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def strictly(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(STRICT)
            await send(message)

        refused = self._look(Headers(scope=scope))
        await (refused.response() if refused else self.app)(scope, receive, strictly)

    def _look(self, headers: Headers) -> Refusal | None:
        host = headers.get("host", "")
        if not self._known(host):
            return Refusal(403, "this server does not go by that host name", "host")
        origin = headers.get("origin")
        if origin is not None and not self._own(origin, host):
            return Refusal(403, "pages of other sites may not ask this server", "origin")
        return None

    def _own(self, origin: str, host: str) -> bool:
        try:
            place = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        return place == host.lower() or place in self.names

    def _known(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
            if name in self.hosts:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
