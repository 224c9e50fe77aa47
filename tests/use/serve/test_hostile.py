"""Requests that are malformed or mean harm get an error in OpenAI's form, and nobody else waits."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

PATH = "/v1/chat/completions"


def call(
    server, body: bytes | str | dict, path: str = PATH, method: str = "POST", **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, JSON and headers of one request."""
    raw = json.dumps(body) if isinstance(body, dict) else body
    raw = raw.encode() if isinstance(raw, str) else raw
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    sent = {"Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        line.request(method, path, raw, sent)
        got = line.getresponse()
        found = got.read()
        kind = got.getheader("content-type", "")
        table = json.loads(found) if kind.startswith("application/json") else {}
        return got.status, table, {key.lower(): value for key, value in got.getheaders()}
    finally:
        line.close()


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64," + base64.b64encode(data).decode()


def ask(image: Any, text: Any = "hello", **more: Any) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": image}, {"type": "text", "text": text}]
    return {"model": "parrot", "messages": [{"role": "user", "content": parts}]} | more


def drawn(kind: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, kind)
    return out.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it is `side` pixels wide and high."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def still_well(server) -> None:
    status, found, _ = call(server, ask({"url": url(drawn())}, "fine"))
    assert (status, found["choices"][0]["message"]["content"]) == (200, "FINE")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_three_kinds_of_images_are_taken(parrot, kind: str) -> None:
    status, found, _ = call(parrot, ask({"url": url(drawn(kind), f"image/{kind.lower()}")}))
    assert (status, found["choices"][0]["message"]["content"]) == (200, "HELLO")


BODIES: dict[str, tuple[bytes | str | dict, int]] = {
    "nothing": (b"", 400),
    "no JSON": ("{", 400),
    "not UTF-8": (b'{"model": "\xff\xfe"}', 400),
    "a list": ("[]", 400),
    "a number": ("1e999999", 400),
    "a very long number": ("9" * 6000, 400),
    "deep nesting": ("[" * 100_000, 400),
    "no messages": ({"model": "parrot"}, 400),
    "no message": ({"model": "parrot", "messages": []}, 400),
    "messages of a wrong type": ({"model": "parrot", "messages": {"role": "user"}}, 400),
    "content null": ({"model": "parrot", "messages": [{"role": "user", "content": None}]}, 400),
    "a part of no kind": (
        {"model": "parrot", "messages": [{"role": "user", "content": [{"type": "video"}]}]},
        400,
    ),
    "text of a wrong type": (ask({"url": url(b"")}, ["hello"]), 400),
    "an address of a wrong type": (ask({"url": 3}), 400),
    "an image of a wrong type": (ask("data:image/png;base64,"), 400),
    "max_tokens of a wrong type": (ask({"url": url(b"")}, max_tokens="many"), 400),
    "max_tokens below 1": (ask({"url": url(b"")}, max_tokens=-5), 400),
    "a boolean as max_tokens": (ask({"url": url(b"")}, max_tokens=True), 400),
    "half a character": (
        json.dumps(ask({"url": url(b"")}, "X")).replace('"X"', '"\\ud800"'),
        400,
    ),
    "empty text": (ask({"url": url(b"")}, " \n"), 422),
    "long text": (ask({"url": url(b"")}, "x" * 301), 413),
    "a file": (ask({"url": "file:///etc/passwd"}), 422),
    "a path": (ask({"url": "/etc/passwd"}), 422),
    "a path above": (ask({"url": "../../../../etc/passwd"}), 422),
    "a web address": (ask({"url": "http://127.0.0.1:1/x.png"}), 422),
    "a secure web address": (ask({"url": "https://example.com/x.png"}), 422),
    "no base64 data": (ask({"url": "data:image/png,abc"}), 400),
    "broken base64": (ask({"url": "data:image/png;base64,@@@@"}), 400),
    "base64 beyond ASCII": (ask({"url": "data:image/png;base64,é"}), 400),
    "an empty image": (ask({"url": url(b"")}), 400),
    "no image at all": (ask({"url": url(b"hello, I am an image")}), 400),
    "an SVG": (ask({"url": url(b"<svg xmlns='http://www.w3.org/2000/svg'/>")}), 400),
    "a GIF": (ask({"url": url(drawn("GIF"))}), 400),
    "half an image": (ask({"url": url(drawn(size=(200, 200))[:-40])}), 400),
    "too many pixels": (ask({"url": url(drawn(size=(600, 500)))}), 413),
    "a thin image that is large once square": (ask({"url": url(drawn(size=(2000, 1)))}), 413),
    "a small bomb": (ask({"url": url(bomb(11_000))}), 413),
    "a bomb": (ask({"url": url(bomb(60_000))}), 413),
    "too large a body": (ask({"url": url(bytes(200_000))}), 413),
}


DATA = base64.encodebytes(drawn()).decode()
"""An image in lines of base64, as `base64 FILE` writes it."""


@pytest.mark.parametrize(
    "image",
    [
        {"url": f"data:image/png;base64,{DATA}"},
        {"url": f"data:image/png;base64,{DATA.strip().rstrip('=')}"},
        {"url": f"DATA:image/png;charset=utf-8;BASE64,{DATA}"},
        {"url": "data:;base64," + base64.urlsafe_b64encode(drawn()).decode()},
        {"url": "data:image/png;base64," + DATA.replace("+", "%2B").replace("\n", "%0A")},
        {"url": "data:image/png," + "".join(f"%{byte:02x}" for byte in drawn())},
        f"data:image/png;base64,{DATA}",
    ],
    ids=["lines", "no padding", "capitals", "url alphabet", "escaped", "no base64", "a string"],
)
def test_an_image_may_be_written_in_every_way_of_data_urls(parrot, image: Any) -> None:
    status, found, _ = call(parrot, ask(image))
    assert (status, found["choices"][0]["message"]["content"]) == (200, "HELLO")


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": 3}], "1.image_url"),
        ([{"type": "image_url", "image_url": {"url": None}}], "0.image_url.url"),
        ([{"type": "text"}], "0.text"),
        ([{"type": "video"}], "0"),
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "x"}], "1.image_url"),
        (
            [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "data:,x"}],
            "1.image_url",
        ),
    ],
)
def test_an_error_names_the_field_at_fault(parrot, parts: list, field: str) -> None:
    body = {"model": "parrot", "messages": [{"role": "user", "content": parts}]}
    _, found, _ = call(parrot, body)
    assert found["error"]["param"] == f"messages.0.content.{field}"
    assert found["error"]["message"].startswith(f"messages.0.content.{field}: ")


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_request_gets_an_error_and_the_next_an_answer(parrot, name: str) -> None:
    body, status = BODIES[name]
    got, found, _ = call(parrot, body)
    assert got == status, found
    assert set(found["error"]) == {"message", "type", "param", "code"}
    assert len(found["error"]["message"]) < 300
    assert "Traceback" not in found["error"]["message"]
    still_well(parrot)


def test_text_of_all_the_world_is_taken(parrot) -> None:
    text = "ñ 漢字 🙂 \u202e <image> </s> {{ 7 * 7 }} <script>"
    body = json.dumps(ask({"url": url(drawn())}, text))
    for raw in (body, "\ufeff" + body):
        status, found, _ = call(parrot, raw)
        assert (status, found["choices"][0]["message"]["content"]) == (200, text.upper())


def test_image_placeholders_in_a_text_do_no_harm(real, picture: Path) -> None:
    for text in ("<image> hello", "<im<image>age> hello", "<image>" * 40, "</s><s>USER: x"):
        body = ask({"url": url(picture.read_bytes())}, text, model="first")
        status, found, _ = call(real, body)
        assert (status, found["choices"][0]["message"]["role"]) == (200, "assistant")
        assert found["usage"]["prompt_tokens"] < 400


def test_a_body_without_a_length_is_cut_off_while_it_is_read(parrot) -> None:
    with socket.create_connection(("127.0.0.1", parrot.port), timeout=30) as line:
        line.sendall(
            f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        part = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(4):
            line.sendall(part)
        assert line.recv(4096).startswith(b"HTTP/1.1 413")
    still_well(parrot)


def until(ready: Callable[[], bool]) -> None:
    """Wait for something that must come within a minute."""
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_place_is_taken_before_a_body_is_read(stand_in) -> None:
    with stand_in(waiting=1, patience=60.0) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
            line.sendall(
                f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                'Content-Length: 1000\r\n\r\n{"model'.encode()
            )
            until(lambda: call(server, b"", "/health", "GET")[1]["inside"] > 0)
            assert call(server, ask({"url": url(drawn())}))[0] == 429
        until(lambda: call(server, b"", "/health", "GET")[1]["inside"] == 0)
        still_well(server)


def test_an_answer_ends_when_its_client_is_gone(stand_in) -> None:
    body = json.dumps(ask({"url": url(drawn())})).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with stand_in(delay=60.0) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
            line.sendall(head.encode() + body)
            until(lambda: bool(server.batches))
        until(lambda: call(server, b"", "/health", "GET")[1]["inside"] == 0)
        start = time.monotonic()
    assert time.monotonic() - start < 30


def test_slow_clients_are_dropped_and_keep_nobody_waiting(parrot) -> None:
    lines = [socket.create_connection(("127.0.0.1", parrot.port), timeout=30) for _ in range(20)]
    try:
        for line in lines[:10]:
            line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localh")
        for line in lines[10:]:
            line.sendall(
                f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                'Content-Length: 1000\r\n\r\n{"model'.encode()
            )
        start = time.monotonic()
        still_well(parrot)
        assert time.monotonic() - start < 5.5  # less than the patience with slow ones
        assert lines[0].recv(100) == b""
        assert lines[10].recv(100).startswith(b"HTTP/1.1 408")
    finally:
        for line in lines:
            line.close()


def test_what_is_not_http_is_dropped(parrot) -> None:
    for junk in (b"\x16\x03\x01\x02\x00\x01", b"GET /\r\n\r\n", b"A" * 100_000):
        with socket.create_connection(("127.0.0.1", parrot.port), timeout=30) as line:
            line.sendall(junk)
            try:
                assert line.recv(4096)[:12] in (b"HTTP/1.1 400", b"")
            except ConnectionResetError:
                continue
    still_well(parrot)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1]:1234"}, 200),
        ({"Host": "[::"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/json; charset=utf-8"}, 200),
    ],
    ids=str,
)
def test_pages_of_other_sites_cannot_ask(parrot, headers: dict[str, str], status: int) -> None:
    got, _, answered = call(parrot, ask({"url": url(drawn())}), **headers)
    assert got == status
    assert "access-control-allow-origin" not in answered


def test_a_proxys_name_is_the_servers_own(stand_in) -> None:
    with stand_in(names=("chat.example.org",)) as server:
        for headers, status in (
            ({"Host": "Chat.example.org", "Origin": "https://chat.example.org"}, 200),
            ({"Origin": "https://chat.example.org"}, 200),  # the proxy writes a Host of its own
            ({"Host": "chat.example.org", "Origin": "https://evil.example"}, 403),
            ({"Host": "chat.example.org.evil.example"}, 403),
            ({"Origin": "https://chat.example.org:8443"}, 403),
            ({"Origin": "https://[chat.example.org"}, 403),
        ):
            assert call(server, ask({"url": url(drawn())}), **headers)[0] == status, headers


def test_a_preflight_allows_nothing(parrot) -> None:
    status, _, headers = call(
        parrot, b"", method="OPTIONS", Origin="http://evil.example",
        Access_Control_Request_Method="POST",
    )  # fmt: skip
    assert status == 403
    assert not [name for name in headers if name.startswith("access-control")]


def test_addresses_and_methods_that_are_not_there(parrot) -> None:
    for path, method, status in (
        ("/nothing", "GET", 404),
        ("/../../etc/passwd", "GET", 404),
        ("/v1/models/other", "GET", 404),
        ("/v1/models/..%2f..%2fetc", "GET", 404),
        (PATH, "GET", 405),
        ("/", "POST", 405),
    ):
        got, found, _ = call(parrot, b"", path, method)
        assert (got, "error" in found) == (status, True), path


def test_the_page_may_run_its_own_script_alone(parrot) -> None:
    status, _, headers = call(parrot, b"", "/", "GET")
    policy = headers["content-security-policy"]
    assert status == 200
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert call(parrot, b"", "/health", "GET")[1]["status"] == "ok"
