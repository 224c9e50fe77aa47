"""Conversations as token ids, in the model's own chat template; only the assistant's words are learnt."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fcit.types import FcitError, Sample

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %} "
    "{% else %}ASSISTANT: {{ message['content'][0]['text'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""Vicuna v1, the conversation that LLaVA-1.5 was trained in (Liu et al. 2023, arXiv 2310.03744)."""

PALIGEMMA = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>{{ bos_token }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{{ '\\n' }}{% else %}{{ message['content'][0]['text'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
"""What PaliGemma's processor writes (it ships no template): image, prefix, line break, answer."""

TEMPLATES = {"vicuna-v1": VICUNA, "paligemma": PALIGEMMA}
"""Templates by the name that `[model] template` calls them by."""


@dataclass(frozen=True)
class Completion:
    """What a model said: the text, its tokens, and whether it ended by itself (or at the limit).

    `question` counts the tokens up to the answer, the image's included.
    """

    text: str
    question: int
    tokens: int
    ended: bool


class Chat:
    """A processor's chat template and tokenizer; `image` is what stands for an image in a prompt.

    template: one of `TEMPLATES` in place of the processor's own. image_id: the token that image
    embeddings take the place of. kind: the family, which may have a template where the processor has
    none.
    """

    def __init__(
        self, processor: Any, max_length: int, image_id: int, template: str = "", kind: str = ""
    ):
        self.processor, self.tokenizer, self.max_length = processor, processor.tokenizer, max_length
        self.image_id = image_id
        if template and template not in TEMPLATES:
            raise FcitError(f"[model] template: {template!r} is none of {', '.join(TEMPLATES)}")
        own = TEMPLATES.get(template) or processor.chat_template or TEMPLATES.get(kind)
        self.template = own["default"] if isinstance(own, dict) else own
        if not self.template:
            raise FcitError(
                "[model] template: the processor has no chat template of its own; name one of "
                f"{', '.join(TEMPLATES)}, or put a chat_template.jinja into the model's folder"
            )
        marks = (processor.image_token, self.tokenizer.convert_ids_to_tokens(image_id))
        self.marks = tuple(dict.fromkeys(marks))

    @property
    def begins(self) -> bool:
        """Whether the template writes the tokenizer's first token itself."""
        return self._begun(self.question("", self.marks[-1]))

    def question(self, prompt: str, image: str) -> str:
        """The text up to where the assistant answers one prompt about one image."""
        return self._render([_human(self._plain(prompt), image=True)], True, image)

    def ids(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Ids and mask [n, seq] of open prompts, padded on the left."""
        rows = {"input_ids": [self._encode(text)[0] for text in texts]}
        return self.tokenizer.pad(rows, padding=True, padding_side="left", return_tensors="pt")

    def completion(
        self, row: Sequence[int], question: int, limit: int, ends: Collection[int]
    ) -> Completion:
        """A generated row of ids as text, cut at `limit` tokens (a greedy answer's first words do not
        depend on how long it may get). `ends`: the tokens that end an answer."""
        stop = next((at for at, token in enumerate(row) if token in ends), len(row))
        said = row[: min(stop, limit)]
        text = self.tokenizer.decode(said, skip_special_tokens=True).strip()
        return Completion(text, question, len(said), stop < min(limit, len(row)))

    def turns(self, sample: Sample, image: str) -> tuple[list[int], list[int]]:
        """A sample's conversation as ids, and the same with -100 outside the assistant's answers.

        What ends an answer (an end-of-turn token) is learnt, white space after it is not.
        """
        messages: list[dict[str, Any]] = []
        spans: list[tuple[int, int]] = []
        text = ""
        for number, (question, answer) in enumerate(
            [(sample.prompt, sample.answers[0]), *sample.more]
        ):
            messages.append(_human(self._plain(question), image=number == 0))
            opened = self._render(messages, True, image)
            messages.append(
                {"role": "assistant", "content": [{"type": "text", "text": self._plain(answer)}]}
            )
            before, text = text, self._render(messages, False, image)
            if not (text.startswith(opened) and text.startswith(before)):
                raise FcitError(
                    "[model] template: a conversation in the model's chat template does not begin "
                    "with its own earlier part, so the answers in it cannot be told apart"
                )
            spans.append((len(opened), len(text.rstrip())))
        ids, places = self._encode(text)
        ids, places = ids[: self.max_length], places[: self.max_length]
        labels = [
            token if end > start and any(a <= start and end <= b for a, b in spans) else -100
            for token, (start, end) in zip(ids, places, strict=True)
        ]
        wanted = max(1, image.count(self.marks[-1]))
        if ids.count(self.image_id) < wanted or all(label == -100 for label in labels):
            raise FcitError(
                f"training.max_length: {self.max_length} tokens cut off the image or the whole answer "
                f"of {sample.dataset} sample {sample.id}, whose image takes {wanted}; raise it"
            )
        return ids, labels

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """A text's ids, and from where to where in it each reaches.

        In Vicuna's conversation the texts beside the image are tokenized one by one, as LLaVA does:
        what follows the image then starts like a text of its own.
        """
        mark = self.marks[-1]
        pieces = re.split(f"((?:{re.escape(mark)})+)", text) if self.template == VICUNA else [text]
        ids: list[int] = []
        places: list[tuple[int, int]] = []
        at = 0
        for piece in filter(None, pieces):
            first = at == 0 and not self._begun(text)
            encoded = self.tokenizer(piece, return_offsets_mapping=True, add_special_tokens=first)
            ids += encoded["input_ids"]
            places += [(at + start, at + end) for start, end in encoded["offset_mapping"]]
            at += len(piece)
        return ids, places

    def _begun(self, text: str) -> bool:
        """Whether the template wrote the tokenizer's first token itself."""
        bos = self.tokenizer.bos_token
        return bool(bos) and (text.startswith(bos) or self.template == PALIGEMMA)

    def _plain(self, text: str) -> str:
        """A person's text without image placeholders: the template sets the one there is."""
        while found := next((mark for mark in self.marks if mark in text), ""):
            text = text.replace(found, "")  # what is left of one may be another
        return text.strip("\n")

    def _render(self, messages: list[dict[str, Any]], open_turn: bool, image: str) -> str:
        text = self.tokenizer.apply_chat_template(
            messages,
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=open_turn,
        )
        return text.replace(self.processor.image_token, image)


def _human(text: str, image: bool) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "image"}] if image else []
    return {"role": "user", "content": [*content, {"type": "text", "text": text}]}
