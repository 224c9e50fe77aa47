"""The web application: an OpenAI-compatible endpoint, and one page to try it."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fcit.models.chat import Completion
from fcit.models.device import TooLittleMemoryError
from fcit.types import FcitError
from fcit.use.serve.answerer import Reply
from fcit.use.serve.batching import Batcher
from fcit.use.serve.network import Guard
from fcit.use.serve.requests import Limits, Question, Refusal, check_image, error_response, parse

Answer = Callable[[Sequence[Question], Callable[[], bool]], Sequence[Reply | Exception]]

DECODED = 2
"""Images that are decoded at once: each may take a hundred megabytes for a moment."""


@dataclass(frozen=True)
class Served:
    """What is served."""

    name: str
    """The model's name in requests."""
    trained_by: Mapping[str, Sequence[str]]
    """Adapter -> the tasks that trained it."""
    facts: Mapping[str, str]
    """The run's method and setting."""
    created: int = 0
    """When the run was made, in seconds since 1970."""
    hosts: frozenset[str] = frozenset()
    """Host names that the server listens as."""
    names: frozenset[str] = frozenset()
    """Host names of proxies in front of it."""


def build(answer: Answer, served: Served, limits: Limits, key: str = "") -> Starlette:
    """The application. `answer` is called as `Batcher` says; clients must show `key`, if there is one."""
    batcher = Batcher(answer, limits.batch, limits.window / 1000, limits.waiting)
    decoding = asyncio.Semaphore(DECODED)
    page, policy = _page()

    async def home(request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "inside": batcher.in_progress})

    async def models(request: Request) -> Response:
        _check_key(request, key)
        return JSONResponse({"object": "list", "data": [_model(served)]})

    async def model(request: Request) -> Response:
        _check_key(request, key)
        name = request.path_params["name"]
        if name != served.name:
            raise Refusal(404, f"there is no model {name!r} here", "model_not_found", "model")
        return JSONResponse(_model(served))

    async def complete(request: Request) -> Response:
        _check_key(request, key)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "the body must be sent as application/json", "content_type")
        with batcher.slot():
            body = await _body(request, limits)
            chat, question = await asyncio.to_thread(parse, body, served.name, limits)
            del body
            async with decoding:
                await asyncio.to_thread(check_image, question, limits)
            answer = batcher.ask(question, limits.timeout)
            completion, route = await _unless_gone(request, answer)
        head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": served.name,
        }
        about = {"activation": route.activation, "trained_by": served.trained_by}
        if not chat.stream:
            return JSONResponse(_completion(head, completion, about))
        counted = bool(chat.stream_options and chat.stream_options.include_usage)
        events = _events(head, completion, about, counted)
        return StreamingResponse(events, media_type="text/event-stream")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    return Starlette(
        routes=[
            Route("/", home),
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/models/{name}", model),
            Route("/v1/chat/completions", complete, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, hosts=served.hosts, names=served.names)],
        exception_handlers=dict.fromkeys(
            (HTTPException, FcitError, ClientDisconnect, Exception), _error
        ),
        lifespan=lifespan,
    )


async def _error(request: Request, error: Exception) -> Response:
    """Every error, also Starlette's own (404, 405), in OpenAI's form."""
    if isinstance(error, TooLittleMemoryError):
        print(f"fcit: {error}", file=sys.stderr, flush=True)
        error = Refusal(503, "the server has too little memory for this question", "no_memory")
    elif isinstance(error, FcitError):
        error = Refusal(400, str(error), "cannot_answer")
    elif not isinstance(
        error, HTTPException
    ):  # of a client that has gone, nobody reads the response
        error = Refusal(500, "internal error of the server", "internal_error")
    return error_response(error)


def _check_key(request: Request, key: str) -> None:
    """Raise Refusal (401) unless the request shows the key."""
    kind, _, shown = request.headers.get("authorization", "").partition(" ")
    equal = hmac.compare_digest(shown.strip().encode(), key.encode())
    if key and not (equal and kind.lower() == "bearer"):
        raise Refusal(401, "this server needs a key: Authorization: Bearer KEY", "invalid_api_key")


async def _body(request: Request, limits: Limits) -> bytes:
    """The body. Raises Refusal as soon as it is too large or too slow."""
    too_large = Refusal(413, f"the body is larger than {limits.body} bytes", "body_too_large")
    if int(request.headers.get("content-length") or 0) > limits.body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.patience):
            async for part in request.stream():
                body += part
                if len(body) > limits.body:
                    raise too_large
    except TimeoutError:
        raise Refusal(408, "the body came too slowly", "timeout") from None
    return bytes(body)


async def _unless_gone(request: Request, answer: Coroutine[Any, Any, Reply]) -> Reply:
    """The answer. Raises ClientDisconnect as soon as the client is gone."""

    async def disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    asking, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(disconnect())
    try:
        await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise ClientDisconnect
        return asking.result()
    finally:
        asking.cancel()
        leaving.cancel()


# -- OpenAI's forms --------------------------------------------------------------------------------


def _model(served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "fcit",
        "fcit": {**served.facts, "trained_by": served.trained_by},
    }


def _completion(
    head: Mapping[str, Any], answer: Completion, about: Mapping[str, Any]
) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(answer)}
    return {
        **head,
        "object": "chat.completion",
        "choices": [choice],
        "usage": _usage(answer),
        "fcit": about,
    }


def _events(
    head: Mapping[str, Any], answer: Completion, about: Mapping[str, Any], counted: bool
) -> Iterator[str]:
    """The answer as server-sent events. Answers are made in batches, so the text is one piece."""

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        chunk = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {json.dumps(chunk)}\n\n"

    def choice(delta: dict[str, str], reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]

    yield event(choice({"role": "assistant", "content": ""}))
    if answer.text:
        yield event(choice({"content": answer.text}))
    yield event(choice({}, _reason(answer)), fcit=about)
    if counted:
        yield event([], usage=_usage(answer))
    yield "data: [DONE]\n\n"


def _usage(answer: Completion) -> dict[str, int]:
    return {
        "prompt_tokens": answer.question,
        "completion_tokens": answer.tokens,
        "total_tokens": answer.question + answer.tokens,
    }


def _reason(answer: Completion) -> str:
    return "stop" if answer.ended else "length"


# -- the page --------------------------------------------------------------------------------------


def _page() -> tuple[str, str]:
    """The page, and a policy that allows its own script and style and nothing else."""
    text = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")

    def digest(tag: str) -> str:
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()

    policy = (
        f"default-src 'none'; script-src 'sha256-{digest('script')}'; "
        f"style-src 'sha256-{digest('style')}'; img-src data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy
