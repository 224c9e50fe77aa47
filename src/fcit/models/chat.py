"""Conversations as token ids, in the model's own chat template; only the assistant's words carry loss."""

import re
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fcit.models.templates import PALIGEMMA, TEMPLATES, VICUNA
from fcit.types import FcitError, Sample, one_line


@dataclass(frozen=True)
class Completion:
    """A model's answer to one prompt."""

    text: str
    question: int
    """Tokens before the answer, the image's included."""
    tokens: int
    """Tokens of the answer."""
    ended: bool
    """Whether it ended by itself (not at the limit)."""


MARKED = re.compile("\ufdd0([0-9]+)\ufdd1")
"""A control token in a user's text while the template is filled in: its number between noncharacters."""

MOST_TEXTS = 20_000
"""The most conversations and questions that a process keeps tokenized."""

TURN = 64
"""At most so many tokens are expected of what a template writes around a message."""

ASKED, SAID = "zebra", "yonder"
"""A question and an answer that a template is tried with: words that none has in it."""

PATIENCE = 5.0
"""Seconds that a model's chat template has for a short conversation."""


class Chat:
    """A processor's chat template and tokenizer.

    config: the model's configuration; it names the token whose embeddings the image's replace, and the
    model family, which may have a template where the processor has none. template: one of `TEMPLATES`
    instead of the processor's own. In methods, `image` is the text that stands for an image in a prompt.

    Control tokens (`</s>`, `<image>`, `<|im_end|>`) are only those that the template writes. In a prompt
    or an answer they are split into ordinary tokens, so that no text ends a turn or begins another.
    """

    def __init__(self, processor: Any, max_length: int, config: Any, template: str = ""):
        self.processor, self.tokenizer, self.max_length = processor, processor.tokenizer, max_length
        self._kept = lru_cache(MOST_TEXTS)(self._tensors)
        if template and template not in TEMPLATES:
            raise FcitError(f"[model] template: {template!r} is none of {', '.join(TEMPLATES)}")
        own = TEMPLATES.get(template) or processor.chat_template or TEMPLATES.get(config.model_type)
        self.template = own.get("default") if isinstance(own, dict) else own
        if not self.template:
            raise FcitError(
                "[model] template: the processor has no chat template of its own; name one of "
                f"{', '.join(TEMPLATES)}, or put a chat_template.jinja into the model's folder"
            )
        image_id: Any = getattr(config, "image_token_id", None)
        token = (
            self.tokenizer.convert_ids_to_tokens(image_id) if isinstance(image_id, int) else None
        )
        if not token or not hasattr(processor, "image_token"):
            raise FcitError(
                f"[model] path: its tokenizer has no token for images ({image_id!r} in config.json)"
            )
        self.image_id: int = image_id
        self.placeholders = tuple(dict.fromkeys((processor.image_token, token)))
        added = self.tokenizer.added_tokens_decoder.values()
        written = (x.content for x in added if x.special or x.content in self.template)
        self.control = list(dict.fromkeys(x for x in (*self.placeholders, *written) if x.strip()))
        longest_first = sorted(self.control, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)))
        with _deadline(PATIENCE):
            talk = [self._message("user", ASKED, True), self._message("assistant", SAID)]
            opened = self._render(talk[:1], True, "")
            said = self._render(talk, False, "").removeprefix(opened)
            self._after = said.partition(SAID)[2]
        # such as a template for content that is one text prints the list of parts instead
        if ASKED not in opened or SAID not in said or "'text'" in opened + said:
            role, word = ("user", ASKED) if ASKED not in opened else ("assistant", SAID)
            raise FcitError(
                f"[model] template: it does not write the text of the {role}'s message; each message's "
                f"content is a list of parts, {{'type': 'text', 'text': {word!r}}} one of them"
            )
        ends = [token for token in longest_first if token not in self.placeholders]
        self.end = next(filter(self._after.lstrip().startswith, ends), "")
        """The control token that the template ends an answer with, or ""."""
        twice = self._tokenize(self.question("", 2 * self.placeholders[-1]))[0]
        if twice.count(image_id) != 2:
            raise FcitError(
                f"[model] template: it writes no {processor.image_token!r}, the image_token in "
                "tokenizer_config.json, where the image stands, or that is no token of its own"
            )

    @property
    def writes_bos(self) -> bool:
        """Whether the template writes the tokenizer's first token itself."""
        return self._starts_with_bos(self.question("", self.placeholders[-1]))

    def question(self, prompt: str, image: str) -> str:
        """The text of one prompt about one image, up to where the answer begins."""
        return self._render([self._message("user", prompt, True)], True, image)

    def encode(self, prompts: Sequence[str], images: Sequence[str]) -> dict[str, Tensor]:
        """Ids and mask [n, seq] of prompts about one image each, padded on the left."""
        pairs = zip(prompts, images, strict=True)
        rows = {"input_ids": [self._kept(*pair)[0].tolist() for pair in pairs]}
        return self.tokenizer.pad(rows, padding=True, padding_side="left", return_tensors="pt")

    def row(self, sample: Sample, image: str) -> tuple[Tensor, ...]:
        """A sample's `conversation` as two tensors, made once."""
        return self._kept(sample, image)

    def forget(self) -> None:
        """Forget the texts that were tokenized."""
        self._kept.cache_clear()

    def _tensors(self, text: Sample | str, image: str) -> tuple[Tensor, ...]:
        """A sample's `conversation`, or the ids of a prompt. `_kept` keeps them: the same samples come
        again in every round."""
        if isinstance(text, Sample):
            rows = self.conversation(text, image)
        else:
            rows = (self._tokenize(self.question(text, image))[0],)
        return tuple(torch.tensor(row, dtype=torch.int32) for row in rows)

    def completion(
        self, row: Sequence[int], question: int, limit: int, ends: Collection[int]
    ) -> Completion:
        """A generated row of ids as an answer of at most `limit` tokens (the first words of a greedy
        answer do not depend on its limit). `ends`: the tokens that end an answer."""
        stop = next((at for at, token in enumerate(row) if token in ends), len(row))
        answer = row[: min(stop, limit)]
        text = self.tokenizer.decode(answer, skip_special_tokens=True).strip()
        return Completion(text, question, len(answer), stop < min(limit, len(row)))

    def require_end(self) -> None:
        """Raise FcitError where no control token ends an answer, which no training could teach, and where
        prompts change from day to day."""
        if "strftime_now" in (self.template or ""):
            raise FcitError(
                "[model] template: it writes today's date (strftime_now), so every prompt would change "
                "with it; write a date in its place in chat_template.jinja"
            )
        if not self.end:
            raise FcitError(
                "[model] template: no control token ends the assistant's message, so no training teaches "
                "where an answer ends; write {{ eos_token }} after it in chat_template.jinja, or name "
                "vicuna-v1 where the model was trained in that conversation"
            )

    def conversation(self, sample: Sample, image: str) -> tuple[list[int], list[int]]:
        """A sample's conversation as ids, and as labels: -100 outside the assistant's answers.

        The token that ends an answer carries loss, white space after it does not. What exceeds
        `max_length` is cut off. Raises FcitError where that is the image or the whole answer, and as
        `require_end` does.
        """
        ids, labels = (row[: self.max_length] for row in self._whole(sample, image))
        image_tokens = max(1, image.count(self.placeholders[-1]))
        if ids.count(self.image_id) < image_tokens or all(label == -100 for label in labels):
            raise FcitError(
                f"training.max_length: {self.max_length} tokens cut off the image or the whole answer of "
                f"{sample.dataset} sample {sample.id}, whose image takes {image_tokens}; raise it in "
                "a new run, or make the image smaller"
            )
        return ids, labels

    def _whole(self, sample: Sample, image: str) -> tuple[list[int], list[int]]:
        """A `conversation` of any length."""
        self.require_end()
        messages: list[dict[str, Any]] = []
        spans: list[tuple[int, int]] = []
        text = before = ""
        for question, answer in [(sample.prompt, sample.answers[0]), *sample.more]:
            messages.append(self._message("user", question, not messages))
            opened = self._render(messages, True, image)
            if not opened.startswith(before):
                raise FcitError(
                    "[model] template: a conversation in the model's chat template does not begin "
                    "with its own earlier part, so the answers in it cannot be found"
                )
            text += opened[len(before) :]
            messages.append(self._message("assistant", answer))
            start, before = len(text), self._render(messages, False, image)
            # what follows a prompt is the answer, also where the template writes more before it
            said = messages[-1]["content"][-1]["text"] + self._after
            text += before[len(opened) :] if before.startswith(opened) else said
            spans.append((start, len(text.rstrip())))
        ids, offsets = self._tokenize(text)
        labels = [
            token if end > start and any(a <= start and end <= b for a, b in spans) else -100
            for token, (start, end) in zip(ids, offsets, strict=True)
        ]
        return ids, labels

    def cuts_off(self, sample: Sample, image: str) -> bool:
        """Whether `conversation` cuts off a part of the answers. Raises FcitError as it does. A token has
        at least a byte, so only what may be too long is tokenized."""
        texts = [sample.prompt, sample.answers[0], *(text for turn in sample.more for text in turn)]
        room = self.max_length - len(self._kept("", image)[0]) - TURN * len(texts)
        if sum(len(text.encode()) for text in texts) < room:
            return False
        if len(self.row(sample, image)[0]) < self.max_length:
            return False
        return any(label != -100 for label in self._whole(sample, image)[1][self.max_length :])

    def _tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """A text's ids, and where each begins and ends in it.

        In Vicuna's conversation the texts around the image are tokenized one by one, as LLaVA does:
        what follows the image is tokenized like the start of a text. The same is done around control
        tokens of a user.
        """
        images = f"(?:{re.escape(self.placeholders[-1])})+"
        marked = MARKED.pattern.replace("(", "(?:")
        parts = re.split(f"({images}|{marked})" if self.template == VICUNA else f"({marked})", text)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        at = 0
        for part in filter(None, parts):
            if mark := MARKED.fullmatch(part):
                plain = self._plain(self.control[int(mark[1])])
                ids += plain
                offsets += [(at, at + len(part))] * len(plain)
            else:
                first = at == 0 and not self._starts_with_bos(text)
                encoded = self.tokenizer(
                    part, return_offsets_mapping=True, add_special_tokens=first
                )
                ids += encoded["input_ids"]
                offsets += [(at + start, at + end) for start, end in encoded["offset_mapping"]]
            at += len(part)
        return ids, offsets

    def _starts_with_bos(self, text: str) -> bool:
        bos = self.tokenizer.bos_token
        return bool(bos) and (text.startswith(bos) or self.template == PALIGEMMA)

    def _plain(self, token: str) -> list[int]:
        """A control token as ordinary tokens."""
        encoded = self.tokenizer(token, add_special_tokens=False, split_special_tokens=True)
        ids: list[int] = encoded["input_ids"]
        if self.tokenizer.convert_tokens_to_ids(token) not in ids:
            return ids
        return [
            id for letter in token for id in self.tokenizer.encode(letter, add_special_tokens=False)
        ]

    def _message(self, role: str, text: str, image: bool = False) -> dict[str, Any]:
        """A message in whose text control tokens are marked."""
        text = text.replace("\ufdd0", "").replace("\ufdd1", "").strip("\n")
        text = self._control.sub(lambda token: f"\ufdd0{self.control.index(token[0])}\ufdd1", text)
        content = [{"type": "image"}] if image else []
        return {"role": role, "content": [*content, {"type": "text", "text": text}]}

    def _render(self, messages: list[dict[str, Any]], open_turn: bool, image: str) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=open_turn,
            )
        except Exception as error:  # a template can raise anything
            raise FcitError(
                "[model] template: the model's chat template (chat_template.jinja, or chat_template in "
                f"tokenizer_config.json) fails: {one_line(str(error))}"
            ) from None
        return text.replace(self.processor.image_token, image)


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in this thread's Python code once it has run for so long."""
    end, before = time.monotonic() + seconds, sys.gettrace()

    def watch(*event: Any) -> Any:
        if time.monotonic() > end:
            raise TimeoutError(f"it takes more than {seconds:g} seconds")
        return watch

    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)
