"""`fcit serve`: a run behind an OpenAI-compatible endpoint, with a page to see which subspaces answer."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from fcit.runs.api import Run
from fcit.types import FcitError

try:
    import uvicorn

    from fcit.use.serve.answerer import Answerer
    from fcit.use.serve.app import Served, build
    from fcit.use.serve.limits import Limits
    from fcit.use.serve.protocol import patient
except ModuleNotFoundError as error:
    raise FcitError(
        f"fcit serve needs {error.name}; install it with: pip install 'fcit[serve]'"
    ) from None

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def read_key(file: Path | None) -> str:
    """The key clients must show: the first line of a file, or $FCIT_SERVE_KEY; "" for none.

    Raises FcitError when the file cannot be read, or has no key that a client can send.
    """
    if file is None:
        return _sendable(os.environ.get("FCIT_SERVE_KEY", "").strip(), "FCIT_SERVE_KEY")
    try:
        key = file.read_text(encoding="utf-8").strip().split("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FcitError(f"--key-file: {file}: cannot be read: {error}") from None
    if not key:
        raise FcitError(f"--key-file: {file}: is empty; write a key into it")
    return _sendable(key, f"--key-file: {file}")


def _sendable(key: str, where: str) -> str:
    if any(not "!" <= one <= "~" for one in key):
        raise FcitError(
            f"{where}: a key travels in an HTTP header; write it in ASCII letters, digits and signs, "
            "without spaces"
        )
    return key


def serve(
    run: Run,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str = "",
    limits: Limits | None = None,
    say: Callable[[str], None] = print,
    names: Sequence[str] = (),
) -> None:
    """Serve a run until Ctrl-C. names: those of a proxy in front of it (host, or host:port).

    Raises FcitError when it cannot be asked, the port is taken, or a name is none.
    """
    limits = limits or Limits()
    listener = _listen(host, port)
    with listener:
        server = uvicorn.Server(settings(run, host, key, limits, names))
        at = listener.getsockname()
        place = f"[{at[0]}]" if ":" in at[0] else at[0]
        if host not in LOOPBACK and not key:
            say("warning: whoever reaches this port can ask; set --key-file or FCIT_SERVE_KEY")
        say(f"serving {model_name(run)} at http://{place}:{at[1]} (Ctrl-C stops)")
        server.run(sockets=[listener])


def settings(
    run: Run, host: str, key: str, limits: Limits, names: Sequence[str] = ()
) -> uvicorn.Config:
    """The model loaded, the application built, and how uvicorn is to run it."""
    for name in names:
        if not NAME.fullmatch(name):
            raise FcitError(f"--name {name}: give a host name, such as chat.example.org")
    site = run.config
    served = Served(
        model_name(run),
        run.trained_by,
        {"method": site.method.name, "setting": site.setting.name},
        int((run.folder / "config.toml").stat().st_mtime),
        frozenset({host}),
        frozenset(names),
    )
    return uvicorn.Config(
        build(Answerer(run, limits.tokens), served, limits, key),
        http=patient(limits.patience),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=10,
        h11_max_incomplete_event_size=16 << 10,
    )


def model_name(run: Run) -> str:
    """What the model is called in requests: its run folder's name."""
    return run.folder.resolve().name


def _listen(host: str, port: int) -> socket.socket:
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
