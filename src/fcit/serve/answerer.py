"""A run's model, answering batches of questions; each is routed by itself."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from fcit.api import Run
from fcit.client import Data
from fcit.evaluate import activate
from fcit.serve.questions import Question
from fcit.serve.refusal import Refusal
from fcit.site import Site
from fcit.types import Sample

REMEMBERED = 4096
"""Identity features that are kept before all are dropped: strangers' prompts must not fill memory."""


@dataclass(frozen=True)
class Reply:
    """An answer: its text, the tokens of question and answer, whether it ended by itself, and how
    much each adapter gave (by name; nothing where the method does not route)."""

    text: str
    question: int
    tokens: int
    ended: bool
    activation: dict[str, float]


class Answerer:
    """Called with questions, it gives a Reply or a Refusal for each. For one thread at a time.

    Neither images nor their features are kept on disk.
    """

    def __init__(self, run: Run):
        part = run.config.model.model_copy(update={"features": False})
        self.site = Site(run.config.model_copy(update={"model": part}))
        self.site.place(run.state)
        sizes = self.site.model.model.config.get_text_config()
        self.room = int(sizes.max_position_embeddings)
        self.usual = run.config.evaluation.max_new_tokens
        grey = io.BytesIO()
        Image.new("RGB", (32, 32), "grey").save(grey, "PNG")
        for found in self([Question("What is this?", grey.getvalue(), 1)]):
            if isinstance(found, Refusal):
                raise found

    def __call__(self, questions: Sequence[Question]) -> list[Reply | Exception]:
        """Answer a batch. Raises FcitError where the run cannot be asked at all."""
        found: list[Reply | Exception] = []
        with TemporaryDirectory(prefix="fcit-serve-") as folder:
            images = [Path(folder) / str(at) for at in range(len(questions))]
            for path, question in zip(images, questions, strict=True):
                path.write_bytes(question.image)
            lengths = [
                self._length(question.prompt, path)
                for question, path in zip(questions, images, strict=True)
            ]
            fitting = [at for at, length in enumerate(lengths) if length < self.room]
            replies = iter(
                self._answer(
                    [questions[at] for at in fitting],
                    [images[at] for at in fitting],
                    [self.room - lengths[at] for at in fitting],
                )
            )
            for length in lengths:
                found.append(next(replies) if length < self.room else self._too_long(length))
        return found

    def _answer(
        self, questions: Sequence[Question], images: Sequence[Path], rooms: Sequence[int]
    ) -> list[Reply]:
        if not questions:
            return []
        site = self.site
        samples = [
            Sample("", "", path.name, one.prompt, ("",))
            for one, path in zip(questions, images, strict=True)
        ]
        encoder = site.encoder if site.method.identity else None
        shares = activate(site.model, encoder, site.method, site.placed, Data(samples, images))
        if encoder and len(encoder.seen) > REMEMBERED:
            encoder.seen.clear()
        limits = [
            min(one.limit or self.usual, room) for one, room in zip(questions, rooms, strict=True)
        ]
        said = site.model.complete([one.prompt for one in questions], images, limits)
        return [
            Reply(one.text, one.question, one.tokens, one.ended, row)
            for one, row in zip(said, shares, strict=True)
        ]

    def _length(self, prompt: str, image: Path) -> int:
        """How many tokens a question takes, its image's included."""
        model = self.site.model
        text = model.chat.question(prompt, model.features([image])[0].text)
        return model.chat.ids([text])["input_ids"].shape[1]

    def _too_long(self, length: int) -> Refusal:
        said = f"the question takes {length} tokens; the model has room for {self.room} in all"
        return Refusal(400, said, "context_length_exceeded", "messages")
