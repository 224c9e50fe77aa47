"""A run's model, answering batches of questions; each is routed by itself."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from fcit.rounds.client import Data
from fcit.rounds.evaluate import complete
from fcit.runs.api import Run
from fcit.types import FcitError, Sample
from fcit.use.serve.questions import Question
from fcit.use.serve.refusal import Refusal
from fcit.worker.model import ModelWorker


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

    Prompts, images and their features are gone when a batch is answered. tokens: of an answer at most.
    """

    def __init__(self, run: Run, tokens: int = 512):
        part = run.config.model.model_copy(update={"cache_features": False})
        self.site = ModelWorker(run.config.model_copy(update={"model": part}))
        self.site.place(run.state)
        sizes = self.site.model.model.config.get_text_config()
        self.room = int(sizes.max_position_embeddings)
        self.usual, self.tokens = run.config.evaluation.max_new_tokens, tokens
        grey = io.BytesIO()
        Image.new("RGB", (32, 32), "grey").save(grey, "PNG")
        for found in self([Question("What is this?", grey.getvalue(), 1)]):
            if isinstance(found, Refusal):
                raise found

    def __call__(
        self, questions: Sequence[Question], wanted: Callable[[], bool] | None = None
    ) -> list[Reply | Exception]:
        """Answer a batch, as far as `wanted` says that anybody waits. Raises FcitError where the run
        cannot be asked at all."""
        with TemporaryDirectory(prefix="fcit-serve-") as folder:
            try:
                return self._batch(questions, Path(folder), wanted)
            finally:
                self.site.model.cache.forget()
                if self.site.method.identity:
                    self.site.encoder.cache.clear()

    def _batch(
        self, questions: Sequence[Question], folder: Path, wanted: Callable[[], bool] | None
    ) -> list[Reply | Exception]:
        images = [folder / str(at) for at in range(len(questions))]
        for path, question in zip(images, questions, strict=True):
            path.write_bytes(question.image)
        asked = list(zip(questions, images, strict=True))
        lengths = [self._length(question.prompt, path) for question, path in asked]
        fitting = [at for at, length in enumerate(lengths) if length < self.room]
        samples = [Sample("", "", "", questions[at].prompt, ("",)) for at in fitting]
        data = Data(samples, [images[at] for at in fitting])
        limits = [
            min(questions[at].limit or self.usual, self.tokens, self.room - lengths[at])
            for at in fitting
        ]
        replies = iter(self._replies(data, limits, wanted) if fitting else [])
        return [
            next(replies) if length < self.room else self._too_long(length) for length in lengths
        ]

    def _replies(
        self, data: Data, limits: Sequence[int], wanted: Callable[[], bool] | None
    ) -> list[Reply]:
        site = self.site
        encoder = site.encoder if site.method.identity else None
        completions = complete(site.model, encoder, site.method, site.placed, data, limits, wanted)
        return [
            Reply(said.text, said.question, said.tokens, said.ended, route.activation)
            for said, route in completions
        ]

    def _length(self, prompt: str, image: Path) -> int:
        """How many tokens a question takes, its image's included. Raises FcitError where the model takes
        no such image; whoever asks is not told under which name it lies here."""
        model = self.site.model
        try:
            (seen,) = model.features([image])
        except FcitError as error:
            raise FcitError(str(error).removeprefix(f"{image}: ")) from None
        text = model.chat.question(prompt, seen.text)
        return model.chat.encode([text])["input_ids"].shape[1]

    def _too_long(self, length: int) -> Refusal:
        said = f"the question takes {length} tokens; the model has room for {self.room} in all"
        return Refusal(400, said, "context_length_exceeded", "messages")
