"""Conversations as token ids, in the model's own chat template; only the assistant's words carry loss."""

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
"""What PaliGemma's processor writes (it has no template): image, prefix, line break, answer."""

TEMPLATES = {"vicuna-v1": VICUNA, "paligemma": PALIGEMMA}
"""Templates by their name in `[model] template`."""


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


class Chat:
    """A processor's chat template and tokenizer.

    image_id: the token whose embeddings the image's replace. template: one of `TEMPLATES` instead of the
    processor's own. kind: the model family, which may have a template where the processor has none. In
    methods, `image` is the text that stands for an image in a prompt.
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
        tokens = (processor.image_token, self.tokenizer.convert_ids_to_tokens(image_id))
        self.placeholders = tuple(dict.fromkeys(tokens))

    @property
    def writes_bos(self) -> bool:
        """Whether the template writes the tokenizer's first token itself."""
        return self._starts_with_bos(self.question("", self.placeholders[-1]))

    def question(self, prompt: str, image: str) -> str:
        """The text of one prompt about one image, up to where the answer begins."""
        return self._render([self._message("user", prompt, True)], True, image)

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Ids and mask [n, seq] of questions, padded on the left."""
        rows = {"input_ids": [self._tokenize(text)[0] for text in texts]}
        return self.tokenizer.pad(rows, padding=True, padding_side="left", return_tensors="pt")

    def completion(
        self, row: Sequence[int], question: int, limit: int, ends: Collection[int]
    ) -> Completion:
        """A generated row of ids as an answer of at most `limit` tokens (the first words of a greedy
        answer do not depend on its limit). `ends`: the tokens that end an answer."""
        stop = next((at for at, token in enumerate(row) if token in ends), len(row))
        answer = row[: min(stop, limit)]
        text = self.tokenizer.decode(answer, skip_special_tokens=True).strip()
        return Completion(text, question, len(answer), stop < min(limit, len(row)))

    def conversation(self, sample: Sample, image: str) -> tuple[list[int], list[int]]:
        """A sample's conversation as ids, and as labels: -100 outside the assistant's answers.

        The token that ends an answer carries loss, white space after it does not.
        """
        messages: list[dict[str, Any]] = []
        spans: list[tuple[int, int]] = []
        text = ""
        for question, answer in [(sample.prompt, sample.answers[0]), *sample.more]:
            messages.append(self._message("user", question, not messages))
            opened = self._render(messages, True, image)
            messages.append(self._message("assistant", answer))
            earlier, text = text, self._render(messages, False, image)
            if not (text.startswith(opened) and text.startswith(earlier)):
                raise FcitError(
                    "[model] template: a conversation in the model's chat template does not begin "
                    "with its own earlier part, so the answers in it cannot be found"
                )
            spans.append((len(opened), len(text.rstrip())))
        ids, offsets = self._tokenize(text)
        ids, offsets = ids[: self.max_length], offsets[: self.max_length]
        labels = [
            token if end > start and any(a <= start and end <= b for a, b in spans) else -100
            for token, (start, end) in zip(ids, offsets, strict=True)
        ]
        image_tokens = max(1, image.count(self.placeholders[-1]))
        if ids.count(self.image_id) < image_tokens or all(label == -100 for label in labels):
            raise FcitError(
                f"training.max_length: {self.max_length} tokens cut off the image or the whole answer "
                f"of {sample.dataset} sample {sample.id}, whose image takes {image_tokens}; raise it"
            )
        return ids, labels

    def _tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """A text's ids, and where each begins and ends in it.

        In Vicuna's conversation the texts around the image are tokenized one by one, as LLaVA does:
        what follows the image is tokenized like the start of a text.
        """
        token = self.placeholders[-1]
        parts = re.split(f"((?:{re.escape(token)})+)", text) if self.template == VICUNA else [text]
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        at = 0
        for part in filter(None, parts):
            first = at == 0 and not self._starts_with_bos(text)
            encoded = self.tokenizer(part, return_offsets_mapping=True, add_special_tokens=first)
            ids += encoded["input_ids"]
            offsets += [(at + start, at + end) for start, end in encoded["offset_mapping"]]
            at += len(part)
        return ids, offsets

    def _starts_with_bos(self, text: str) -> bool:
        bos = self.tokenizer.bos_token
        return bool(bos) and (text.startswith(bos) or self.template == PALIGEMMA)

    def _message(self, role: str, text: str, image: bool = False) -> dict[str, Any]:
        """A message without image placeholders in its text: the template writes the one there is."""
        while token := next((token for token in self.placeholders if token in text), ""):
            text = text.replace(token, "")  # what remains may form another
        content = [{"type": "image"}] if image else []
        return {"role": role, "content": [*content, {"type": "text", "text": text.strip("\n")}]}

    def _render(self, messages: list[dict[str, Any]], open_turn: bool, image: str) -> str:
        text = self.tokenizer.apply_chat_template(
            messages,
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=open_turn,
        )
        return text.replace(self.processor.image_token, image)
