"""What one server takes on at most."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fcit.types import FcitError


@dataclass(frozen=True)
class Limits:
    """batch: questions answered at once. window: milliseconds a batch waits for more. waiting:
    requests in the house, waiting or being answered; others are told to come again (429). body: bytes
    of a request. pixels: of an image padded to a square. prompt: characters. tokens: of an
    answer, whatever a request asks for. timeout: seconds a request may wait for its answer. patience:
    seconds a client has to send its headers, and again its body. connections: open at once; more are
    refused (503)."""

    batch: int = 16
    window: float = 5.0
    waiting: int = 64
    body: int = 8 << 20
    pixels: int = 36_000_000
    prompt: int = 4000
    tokens: int = 512
    timeout: float = 120.0
    patience: float = 15.0
    connections: int = 128

    def __post_init__(self) -> None:
        for one in fields(self):
            if not 0 < getattr(self, one.name) < float("inf") and one.name != "window":
                raise FcitError(f"--{one.name}: {getattr(self, one.name)} must be above 0")
        if not 0 <= self.window < float("inf"):
            raise FcitError(f"--window: {self.window} must be 0 or more")
