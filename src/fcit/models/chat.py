"""Conversations as token ids, in the model's own chat template; only the assistant's words are learnt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from fcit.types import FcitError, Sample


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
    """A processor's chat template and tokenizer. `tokens`: how many image tokens an image takes."""

    def __init__(self, processor: Any, max_length: int):
        self.processor, self.tokenizer, self.max_length = processor, processor.tokenizer, max_length
        self.image_id = self.tokenizer.convert_tokens_to_ids(processor.image_token)

    def question(self, prompt: str, tokens: int) -> str:
        """The text up to where the assistant answers one prompt about one image."""
        return self._render([_human(self._plain(prompt), image=True)], True, tokens)

    def completion(
        self, row: Sequence[int], question: int, limit: int, ends: Collection[int]
    ) -> Completion:
        """A generated row of ids as text, cut at `limit` tokens (a greedy answer's first words do not
        depend on how long it may get). `ends`: the tokens that end an answer."""
        stop = next((at for at, token in enumerate(row) if token in ends), len(row))
        said = row[: min(stop, limit)]
        text = self.tokenizer.decode(said, skip_special_tokens=True).strip()
        return Completion(text, question, len(said), stop < min(limit, len(row)))

    def turns(self, sample: Sample, tokens: int) -> tuple[list[int], list[int]]:
        """A sample's conversation as ids, and the same with -100 outside the assistant's answers."""
        messages: list[dict[str, Any]] = []
        spans: list[tuple[int, int]] = []
        text = ""
        for number, (question, answer) in enumerate(
            [(sample.prompt, sample.answers[0]), *sample.more]
        ):
            messages.append(_human(self._plain(question), image=number == 0))
            start = len(self._render(messages, True, tokens))
            messages.append(
                {"role": "assistant", "content": [{"type": "text", "text": self._plain(answer)}]}
            )
            text = self._render(messages, False, tokens)
            spans.append((start, len(text)))
        encoded = self.tokenizer(
            text, return_offsets_mapping=True, truncation=True, max_length=self.max_length
        )
        ids = list(encoded["input_ids"])
        labels = [
            token if end > start and any(a <= start and end <= b for a, b in spans) else -100
            for token, (start, end) in zip(ids, encoded["offset_mapping"], strict=True)
        ]
        if ids.count(self.image_id) < tokens or all(label == -100 for label in labels):
            raise FcitError(
                f"training.max_length: {self.max_length} tokens cut off the image or the whole answer "
                f"of {sample.dataset} sample {sample.id}; raise it"
            )
        return ids, labels

    def _plain(self, text: str) -> str:
        """A person's text without image placeholders: the template sets the one there is."""
        while self.processor.image_token in text:  # what is left of one may be another
            text = text.replace(self.processor.image_token, "")
        return text.strip("\n")

    def _render(self, messages: list[dict[str, Any]], open_turn: bool, tokens: int) -> str:
        text = self.processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=open_turn
        )
        image = self.processor.image_token
        return text.replace(image, image * tokens)


def _human(text: str, image: bool) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "image"}] if image else []
    return {"role": "user", "content": [*content, {"type": "text", "text": text}]}
