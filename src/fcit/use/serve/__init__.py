"""`fcit serve`: an OpenAI-compatible endpoint for a run, with a page that shows which subspaces answer.

`app` routes requests, `requests` checks them, `batching` collects them, `answerer` holds the model.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from fcit.files import read_text
from fcit.runs.api import Run
from fcit.types import FcitError, extra, naming

try:
    import uvicorn

    from fcit.use.serve.answerer import Answerer
    from fcit.use.serve.app import Served, build
    from fcit.use.serve.network import HOST_NAME, bind, header_timeout
    from fcit.use.serve.requests import Limits
except ModuleNotFoundError as error:
    raise FcitError(f"fcit serve needs {error.name}; install it with: {extra('serve')}") from None

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def read_key(file: Path | None) -> str:
    """The key clients must show: the first line of a file, or $FCIT_SERVE_KEY; "" for none.

    Raises FcitError when the file cannot be read, or has no key that a client can send.
    """
    label = "FCIT_SERVE_KEY" if file is None else f"--key-file: {file}"
    if file is None:
        key = os.environ.get("FCIT_SERVE_KEY", "").strip()
    else:
        with naming("--key-file"):
            key = read_text(file, "key file").strip().split("\n")[0].strip()
        if not key:
            raise FcitError(f"{label}: is empty; write a key into it")
    if not all("!" <= letter <= "~" for letter in key):
        raise FcitError(
            f"{label}: a key is sent in an HTTP header; write it in ASCII letters, digits and signs, "
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
    """Serve a run until Ctrl-C. names: of a proxy in front of the server (host, or host:port).

    Raises FcitError when the run cannot answer, the port is taken, or a name is not a host name.
    """
    with bind(host, port) as listener:
        say("loading the model")
        server = uvicorn.Server(settings(run, host, key, limits or Limits(), names))
        address, port = listener.getsockname()[:2]
        address = f"[{address}]" if ":" in address else address
        if host not in LOOPBACK and not key:
            say(
                "warning: anyone who reaches this port can use it; set --key-file or FCIT_SERVE_KEY"
            )
        listener.listen()  # who reads the next line may connect
        say(f"serving {model_name(run)} at http://{address}:{port} (Ctrl-C stops)")
        server.run(sockets=[listener])


def settings(
    run: Run, host: str, key: str, limits: Limits, names: Sequence[str] = ()
) -> uvicorn.Config:
    """The model loaded, the application built, and uvicorn's settings for it."""
    for name in names:
        if not HOST_NAME.fullmatch(name):
            raise FcitError(f"--name {name}: give a host name, such as chat.example.org")
    served = Served(
        model_name(run),
        run.trained_by,
        {"method": run.config.method.name, "setting": run.config.setting.name},
        int(run.files.config.stat().st_mtime),
        frozenset({host}),
        frozenset(names),
    )
    return uvicorn.Config(
        build(Answerer(run, limits.tokens), served, limits, key),
        http=header_timeout(limits.patience),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=max(limits.connections, 2 * limits.waiting) + 1,  # uvicorn counts its own
        timeout_keep_alive=5,
        timeout_graceful_shutdown=10,
        h11_max_incomplete_event_size=16 << 10,
    )


def model_name(run: Run) -> str:
    """The model's name in requests: its run folder's name."""
    return run.files.path.resolve().name
