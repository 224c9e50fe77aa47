"""A chat completion request: one question about one image, or a refusal in OpenAI's form."""

import base64
import json
from codecs import BOM_UTF8
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from fcit.files import clean
from fcit.models.images import ImageTooLargeError, open_image
from fcit.types import FcitError, readable

FORMATS = ("PNG", "JPEG", "WEBP")


class Refusal(HTTPException):
    """A request that is not answered. `code` is a word for programs, `param` the field at fault."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None
    ):
        headers = {"Retry-After": "1"} if status in (429, 503) else {}
        headers |= {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        super().__init__(status, message, headers)
        self.code, self.param = code, param


def error_response(error: HTTPException) -> JSONResponse:
    """An error in OpenAI's form."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    default = "server_error" if error.status_code >= 500 else "invalid_request_error"
    body = {
        "message": error.detail,
        "type": kinds.get(error.status_code, default),
        "param": getattr(error, "param", None),
        "code": getattr(error, "code", None),
    }
    return JSONResponse({"error": body}, error.status_code, error.headers)


@dataclass(frozen=True)
class Limits:
    """The limits of one server. Raises FcitError naming the option where a value makes no sense."""

    batch: int = 16
    """Questions answered at once."""
    window: float = 5.0
    """Milliseconds a batch waits for more questions."""
    waiting: int = 64
    """Maximum concurrent requests (more get 429)."""
    body: int = 8 << 20
    """Bytes of a request."""
    pixels: int = 36_000_000
    """Pixels of an image after padding to a square."""
    prompt: int = 4000
    """Characters of a prompt."""
    tokens: int = 512
    """Tokens of an answer, whatever the request asks for."""
    timeout: float = 120.0
    """Seconds until a request without an answer is given up."""
    patience: float = 15.0
    """Seconds a client has to send its headers, and again its body."""
    connections: int = 128
    """Maximum open connections (more get 503)."""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not 0 <= value < float("inf") or (value == 0 and name != "window"):
                least = "0 or more" if name == "window" else "above 0"
                raise FcitError(f"--{name}: {value} must be {least}")


@dataclass(frozen=True)
class Question:
    """A prompt about an image."""

    prompt: str
    image: bytes
    """The content of the image's file."""
    limit: int | None = None
    """Tokens of the answer (None: the server's default)."""
    field: str = "messages"
    """Where in the request the image is."""


class Strict(BaseModel):
    """No conversion between types; unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class ImageUrl(Strict):
    """Where an image is."""

    url: str


class TextPart(Strict):
    """Text in a message."""

    type: Literal["text"]
    text: str


def _address(value: Any) -> Any:
    """Some clients send the address alone."""
    return {"url": value} if isinstance(value, str) else value


class ImagePart(Strict):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(_address)]


def _parts(value: Any) -> Any:
    if not isinstance(value, str | list):
        raise ValueError("must be text or a list of parts")
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(Strict):
    """One message of the conversation."""

    role: str
    content: Annotated[list[Part], BeforeValidator(_parts)]


class StreamOptions(Strict):
    """Options of a streamed answer."""

    include_usage: bool = False
    """Whether the last chunk counts tokens."""


Tokens = Annotated[int, Field(ge=1)]


class ChatRequest(Strict):
    """A chat completion request; `parse` looks at the fields that are not listed here."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


NEUTRAL: dict[str, tuple[Any, ...]] = {
    "temperature": (0,),
    "n": (1,),
    "stop": ([],),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
}
"""Fields that would change the answer, and the values (besides null) that do not. Fields that cannot
change a greedy answer (top_p, seed, user, ...) are ignored."""


def parse(body: bytes, model: str, limits: Limits) -> tuple[ChatRequest, Question]:
    """The request and its question; the image is not decoded yet (see `check_image`).

    Raises Refusal: 400 for malformed requests, 404 for another model, 413 for too long a prompt, 422 for
    what is well formed but not supported.
    """
    try:
        request = ChatRequest.model_validate_json(body.removeprefix(BOM_UTF8))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = first["loc"]
        if len(place) > 4:  # in a part, pydantic names the part's type too
            place = (*place[:4], *place[5:])
        field = ".".join(map(str, place))
        code = "invalid_json" if first["type"] == "json_invalid" else "invalid_type"
        raise Refusal(400, f"{field or 'body'}: {readable(first)}", code, field or None) from None
    if request.model != model:
        message = f"no such model; this server has {model!r}"
        raise Refusal(404, message, "model_not_found", "model")
    for key, value in (request.model_extra or {}).items():
        values = NEUTRAL.get(key)
        if values is not None and value is not None and value not in values:
            advice = f"leave it out, or set {json.dumps(values[0])}" if values else "leave it out"
            message = f"{key}: answers are greedy text; {advice}"
            raise Refusal(422, message, "unsupported_value", key)
    prompt, url, field = _only_message(request.messages)
    if len(prompt) > limits.prompt:
        message = f"the text has {len(prompt)} characters; the limit is {limits.prompt}"
        raise Refusal(413, message, "prompt_too_long", "messages")
    limit = request.max_completion_tokens or request.max_tokens
    return request, Question(prompt, _decode(url, field), limit, field)


def _only_message(messages: list[Message]) -> tuple[str, str, str]:
    """The text of the one message that is allowed, its image's address, and the field of that."""
    parts = messages[0].content
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    urls = {at: part.image_url.url for at, part in enumerate(parts) if isinstance(part, ImagePart)}
    if len(messages) > 1 or messages[0].role != "user":
        message = "the model answers one instruction at a time: send one message, of role user"
        raise Refusal(422, message, "single_turn", "messages")
    if len(urls) != 1:
        message = f"the model answers about one image; the message has {len(urls)}"
        raise Refusal(422, message, "one_image", "messages")
    if not text.strip():
        raise Refusal(422, "the message has no text", "no_text", "messages")
    ((at, url),) = urls.items()
    try:
        return clean(text), url, f"messages.0.content.{at}.image_url"
    except FcitError as error:
        raise Refusal(400, f"the text {error}", "invalid_text", "messages") from None


def _decode(url: str, field: str) -> bytes:
    """The bytes of a data: URL (RFC 2397); nothing is ever fetched or opened. Base64 may have line breaks
    (RFC 2045), no padding, and the alphabet of addresses."""
    head, comma, data = url.partition(",")
    kind = "".join(head.split()).lower()
    if not kind.startswith("data:") or not comma:
        message = f"{field}: must be a data: URL (data:image/png;base64,...); nothing is fetched"
        raise Refusal(422, message, "image_url", field)
    try:
        content = unquote_to_bytes(data.encode("ascii"))
        if not kind.endswith(";base64"):
            return content
        content = b"".join(content.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
        return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
    except ValueError:
        message = f"{field}: the data: URL is not valid base64"
        raise Refusal(400, message, "image_url", field) from None


def check_image(question: Question, limits: Limits) -> None:
    """Decode a question's image to see that it is whole; its size is checked before. Raises Refusal."""
    field = question.field
    try:
        open_image(question.image, formats=FORMATS, max_pixels=limits.pixels)
    except ImageTooLargeError:
        message = f"{field}: the image, padded to a square, has more than {limits.pixels} pixels"
        raise Refusal(413, message, "image_too_large", field) from None
    except FcitError as error:
        message = f"{field}: {error}; send PNG, JPEG or WebP"
        raise Refusal(400, message, "invalid_image", field) from None
