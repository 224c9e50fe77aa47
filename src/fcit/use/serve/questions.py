"""From the body of a chat completion request to one question about one image, or a refusal."""

from __future__ import annotations

import base64
import binascii
import io
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fcit.use.serve.limits import Limits
from fcit.use.serve.refusal import Refusal

FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True)
class Question:
    """A prompt about an image file's bytes; `limit`: tokens of the answer (None: the server's own)."""

    prompt: str
    image: bytes
    limit: int | None = None


class Form(BaseModel):
    """Known fields have the right types; others are looked at by name."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Url(Form):
    """Where an image is."""

    url: str


class TextPart(Form):
    """Words of a message."""

    type: Literal["text"]
    text: str


class ImagePart(Form):
    """An image of a message."""

    type: Literal["image_url"]
    image_url: Url


class Message(Form):
    """One message of the conversation."""

    role: str
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]


class StreamOptions(Form):
    """Whether the last chunk counts tokens."""

    include_usage: bool = False


Tokens = Annotated[int, Field(ge=1)]


class Request(Form):
    """A chat completion request, as far as it is understood."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


HARMLESS: dict[str, tuple[Any, ...]] = {
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
"""Fields that would change the answer, and the values (beside null) that ask for nothing special.
What cannot change a greedy answer (top_p, seed, user, ...) is ignored."""


def parse(body: bytes, model: str, limits: Limits) -> tuple[Request, Question]:
    """The request and its question; the image is not yet looked at (see `picture`).

    Raises Refusal: 400 for what is malformed, 404 for another model, 413 for too long a prompt, 422
    for what is well formed and cannot be done here.
    """
    try:
        table = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not valid JSON", "invalid_json") from None
    if not isinstance(table, dict):
        raise Refusal(400, "the body must be a JSON object", "invalid_json")
    try:
        request = Request.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refusal(400, f"{where}: {first['msg']}", "invalid_type", where) from None
    if request.model != model:
        raise Refusal(
            404, f"there is no such model here; it is {model!r}", "model_not_found", "model"
        )
    for key, values in HARMLESS.items():
        if table.get(key) is not None and table[key] not in values:
            way = f"leave it out, or set {json.dumps(values[0])}" if values else "leave it out"
            raise Refusal(422, f"{key}: answers are greedy text; {way}", "unsupported_value", key)
    prompt, url = _only_message(request.messages)
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise Refusal(400, "the text is not valid Unicode", "invalid_text", "messages") from None
    if len(prompt) > limits.prompt:
        said = f"the text has {len(prompt)} characters; at most {limits.prompt} are taken"
        raise Refusal(413, said, "prompt_too_long", "messages")
    limit = request.max_completion_tokens or request.max_tokens
    return request, Question(prompt, _data(url), limit)


def _only_message(messages: list[Message]) -> tuple[str, str]:
    """The text and the image's address of the one message there may be."""
    if len(messages) > 1 or messages[0].role != "user":
        said = "the model answers one instruction at a time: send one message, of role user"
        raise Refusal(422, said, "single_turn", "messages")
    content = messages[0].content
    parts = [] if isinstance(content, str) else content
    texts = [content] if isinstance(content, str) else []
    texts += [part.text for part in parts if isinstance(part, TextPart)]
    urls = [part.image_url.url for part in parts if isinstance(part, ImagePart)]
    if len(urls) != 1:
        said = f"the model answers about one image; the message has {len(urls)}"
        raise Refusal(422, said, "one_image", "messages")
    text = "\n".join(texts)
    if not text.strip():
        raise Refusal(422, "the message has no text", "no_text", "messages")
    return text, urls[0]


def _data(url: str) -> bytes:
    """The bytes of a data: URL; nothing is ever fetched or opened."""
    head, comma, data = url.partition(",")
    if not head.startswith("data:") or not comma:
        said = "images are taken as data: URLs only (data:image/png;base64,...); nothing is fetched"
        raise Refusal(422, said, "image_url", "messages")
    if not head.endswith(";base64"):
        raise Refusal(400, "the image's data: URL is not base64", "image_url", "messages")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, "the image is not valid base64", "image_url", "messages") from None


def picture(data: bytes, limits: Limits) -> None:
    """Check that the bytes are one whole image, its size before it is decoded. Raises Refusal."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = max(image.size) ** 2  # models are given it padded to a square
            if pixels <= limits.pixels:
                image.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pixels = limits.pixels + 1
    except Exception:  # Pillow raises nearly anything on a broken file
        said = "the image cannot be decoded; PNG, JPEG and WebP are taken"
        raise Refusal(400, said, "invalid_image", "messages") from None
    if pixels > limits.pixels:
        said = f"the image, padded to a square, has more than {limits.pixels} pixels"
        raise Refusal(413, said, "image_too_large", "messages")
