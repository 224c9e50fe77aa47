"""A server in a thread, with the mini model or with a stand-in that answers at once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import handmade

if TYPE_CHECKING:
    import uvicorn

    from fcit.use.serve.requests import Question


@pytest.fixture(scope="session")
def extra() -> None:
    """Skips what needs the extra where it is not installed."""
    for name in ("starlette", "uvicorn"):
        pytest.importorskip(name, reason="the extra fcit[serve] is not installed")


@dataclass
class Server:
    """Where it listens, and the batches its model was asked."""

    port: int
    batches: list[list[str]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running(config: uvicorn.Config, batches: list[list[str]]) -> Iterator[Server]:
    """A uvicorn server in a thread, on a free port of loopback."""
    import uvicorn

    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield Server(listener.getsockname()[1], batches)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def stand_in(extra: None):
    """Makes servers whose model repeats the question in upper case, `delay` seconds a batch."""
    import uvicorn

    from fcit.models.chat import Completion
    from fcit.rounds.evaluate import Route
    from fcit.use.serve.answerer import Reply
    from fcit.use.serve.app import Served, build
    from fcit.use.serve.network import header_timeout
    from fcit.use.serve.requests import Limits

    @contextmanager
    def make(
        delay: float = 0.0, key: str = "", names: Sequence[str] = (), **limits: float
    ) -> Iterator[Server]:
        batches: list[list[str]] = []

        def answer(
            questions: Sequence[Question], wanted: Callable[[], bool]
        ) -> list[Reply | Exception]:
            batches.append([one.prompt for one in questions])
            until = time.monotonic() + delay
            while time.monotonic() < until and wanted():
                time.sleep(0.01)
            if any("break" in one.prompt for one in questions):
                raise RuntimeError("broken")
            shares = {"0": 0.75, "1": 0.25}
            return [
                (
                    Completion(one.prompt.upper()[: one.limit], 7, 3, one.limit is None),
                    Route(shares),
                )
                for one in questions
            ]

        bounds = Limits(**limits)  # type: ignore[arg-type]
        served = Served(
            "parrot",
            {"0": ["IconQA"], "1": ["FigureQA"]},
            {"method": "m", "setting": "s"},
            5,
            names=frozenset(names),
        )
        config = uvicorn.Config(
            build(answer, served, bounds, key),
            http=header_timeout(bounds.patience),
            ws="none",
            log_level="critical",
            access_log=False,
            timeout_graceful_shutdown=5,
        )
        with running(config, batches) as server:
            yield server

    return make


@pytest.fixture(scope="session")
def parrot(stand_in) -> Iterator[Server]:
    """A stand-in with small limits, for all who only ask."""
    with stand_in(body=200_000, pixels=250_000, prompt=300, patience=6.0) as server:
        yield server


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.picture(tmp_path_factory.mktemp("picture") / "photo.png")


@pytest.fixture(scope="session")
def made(table: dict, tmp_path_factory: pytest.TempPathFactory):
    """A run of disco made by hand."""
    return handmade.run(tmp_path_factory.mktemp("served") / "first", table)


@pytest.fixture(scope="session")
def real(extra: None, made) -> Iterator[Server]:
    """The mini model served."""
    from fcit.use.serve import Limits, settings

    config = settings(made, "127.0.0.1", "", Limits(window=30.0))
    with running(config, []) as server:
        yield server
