"""The web application: an OpenAI-compatible endpoint, and one page to try it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fcit.types import FcitError
from fcit.use.serve.answerer import Reply
from fcit.use.serve.batching import Batcher
from fcit.use.serve.guard import Guard
from fcit.use.serve.limits import Limits
from fcit.use.serve.questions import Question, parse, picture
from fcit.use.serve.refusal import Refusal

Answer = Callable[[Sequence[Question], Callable[[], bool]], Sequence[Reply | Exception]]

DECODED = 2
"""Images that are decoded at once: each may take a hundred megabytes for a moment."""


@dataclass(frozen=True)
class Served:
    """What is served: the model's name, the tasks that trained each adapter, what is known of the run
    (method, setting), when it was made (seconds since 1970), the hosts it listens as, and the names of
    proxies in front of it."""

    name: str
    trained_by: Mapping[str, Sequence[str]]
    facts: Mapping[str, str]
    created: int = 0
    hosts: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()


def build(answer: Answer, served: Served, limits: Limits, key: str = "") -> Starlette:
    """The application. `answer` is called in a thread of its own, with questions and with what says
    whether anybody still waits; `key`: what clients must show, if anything."""
    batcher = Batcher(answer, limits.batch, limits.window / 1000, limits.waiting)
    decoding = asyncio.Semaphore(DECODED)
    page, policy = _page()

    async def home(request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "inside": batcher.held})

    async def models(request: Request) -> Response:
        _admit(request, key)
        return JSONResponse({"object": "list", "data": [_model(served)]})

    async def model(request: Request) -> Response:
        _admit(request, key)
        name = request.path_params["name"]
        if name != served.name:
            raise Refusal(404, f"there is no model {name!r} here", "model_not_found", "model")
        return JSONResponse(_model(served))

    async def complete(request: Request) -> Response:
        _admit(request, key)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "the body must be sent as application/json", "content_type")
        with batcher.place():
            body = await _body(request, limits)
            asked, question = await asyncio.to_thread(parse, body, served.name, limits)
            del body
            async with decoding:
                await asyncio.to_thread(picture, question.image, limits)
            reply = await _unless_gone(request, batcher.ask(question, limits.timeout))
        name = f"chatcmpl-{secrets.token_hex(12)}"
        if asked.stream:
            counted = bool(asked.stream_options and asked.stream_options.include_usage)
            chunks = _chunks(name, served, reply, counted)
            return StreamingResponse(chunks, media_type="text/event-stream")
        return JSONResponse(_completion(name, served, reply))

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/models/{name}", model),
            Route("/v1/chat/completions", complete, methods=["POST"]),
        ],
        exception_handlers={
            Refusal: _refused,
            HTTPException: _no_such,
            FcitError: _cannot,
            ClientDisconnect: _gone,
            Exception: _broken,
        },
        lifespan=life,
    )
    app.add_middleware(Guard, hosts=served.hosts, names=served.names)
    return app


def _admit(request: Request, key: str) -> None:
    """Raise Refusal (401) unless the request shows the key."""
    kind, _, shown = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(shown.strip().encode(), key.encode())
    if key and not (right and kind.lower() == "bearer"):
        raise Refusal(401, "this server wants a key: Authorization: Bearer KEY", "invalid_api_key")


async def _body(request: Request, limits: Limits) -> bytes:
    """The body, given up as soon as it is too large or too slow."""
    said = f"the body is larger than {limits.body} bytes"
    if int(request.headers.get("content-length") or 0) > limits.body:
        raise Refusal(413, said, "body_too_large")
    body = bytearray()
    try:
        async with asyncio.timeout(limits.patience):
            async for part in request.stream():
                body += part
                if len(body) > limits.body:
                    raise Refusal(413, said, "body_too_large")
    except TimeoutError:
        raise Refusal(408, "the body came too slowly", "timeout") from None
    return bytes(body)


async def _unless_gone(request: Request, answer: Coroutine[Any, Any, Reply]) -> Reply:
    """The answer, given up as soon as the client is gone. Raises ClientDisconnect then."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    asking, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(left())
    try:
        await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise ClientDisconnect
        return asking.result()
    finally:
        asking.cancel()
        leaving.cancel()


# -- what is answered ------------------------------------------------------------------------------


def _model(served: Served) -> dict[str, Any]:
    about = {**served.facts, "trained_by": served.trained_by}
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "fcit",
        "fcit": about,
    }


def _about(served: Served, reply: Reply) -> dict[str, Any]:
    """The field that is fcit's own: how much each adapter gave, and who trained it."""
    return {"activation": reply.activation, "trained_by": served.trained_by}


def _usage(reply: Reply) -> dict[str, int]:
    return {
        "prompt_tokens": reply.question,
        "completion_tokens": reply.tokens,
        "total_tokens": reply.question + reply.tokens,
    }


def _head(name: str, served: Served, kind: str) -> dict[str, Any]:
    return {"id": name, "object": kind, "created": int(time.time()), "model": served.name}


def _completion(name: str, served: Served, reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(reply)}
    return _head(name, served, "chat.completion") | {
        "choices": [choice],
        "usage": _usage(reply),
        "fcit": _about(served, reply),
    }


def _chunks(name: str, served: Served, reply: Reply, counted: bool) -> Iterator[str]:
    """The same as server-sent events. Answers are made in batches, so the text comes in one piece."""
    head = _head(name, served, "chat.completion.chunk")

    def event(delta: dict[str, str], reason: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return f"data: {json.dumps({**head, 'choices': [choice], **more})}\n\n"

    yield event({"role": "assistant", "content": ""})
    if reply.text:
        yield event({"content": reply.text})
    yield event({}, _reason(reply), fcit=_about(served, reply))
    if counted:
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': _usage(reply)})}\n\n"
    yield "data: [DONE]\n\n"


def _reason(reply: Reply) -> str:
    return "stop" if reply.ended else "length"


# -- what goes wrong -------------------------------------------------------------------------------


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: "there is nothing at this address", 405: "this address takes another method"}
    refused = Refusal(error.status_code, said.get(error.status_code, error.detail)).response()
    refused.headers.update(error.headers or {})
    return refused


async def _cannot(request: Request, error: Exception) -> Response:
    return Refusal(400, str(error), "cannot_answer").response()


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


async def _broken(request: Request, error: Exception) -> Response:
    return Refusal(500, "the server failed at this request", "internal_error").response()


# -- the page --------------------------------------------------------------------------------------


def _page() -> tuple[str, str]:
    """The page, and the policy that lets it run its own script and style and nothing else."""
    text = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")

    def digest(tag: str) -> str:
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        return base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()

    policy = (
        f"default-src 'none'; script-src 'sha256-{digest('script')}'; "
        f"style-src 'sha256-{digest('style')}'; img-src data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy
