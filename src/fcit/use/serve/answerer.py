"""A run's model, answering batches of questions; each is routed by itself."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from fcit.models.chat import Completion
from fcit.models.device import enough_memory
from fcit.rounds.client import Data
from fcit.rounds.evaluate import Route, complete
from fcit.runs.api import Run
from fcit.types import FcitError, Sample
from fcit.use.serve.requests import Question, Refusal

Reply = tuple[Completion, Route]
"""The answer to one question, and how it was routed."""


class Answerer:
    """A function from questions to a Reply or a Refusal for each; for one thread at a time.

    Prompts, images and their features are deleted after each batch. tokens: the most in an answer.
    """

    def __init__(self, run: Run, tokens: int = 512):
        section = replace(run.config.model, cache_features=False)
        self.worker = run.load_worker(replace(run.config, model=section))
        sizes = self.worker.model.model.config.get_text_config()
        self.context = int(sizes.max_position_embeddings)
        self.default, self.tokens = run.config.evaluation.max_new_tokens, tokens
        file = io.BytesIO()
        Image.new("RGB", (32, 32), "gray").save(file, "PNG")
        (reply,) = self([Question("What is this?", file.getvalue(), 1)])  # fail now, not later
        if isinstance(reply, Refusal):
            raise FcitError(f"{run.folder}: {reply.detail}")

    def __call__(
        self, questions: Sequence[Question], wanted: Callable[[], bool] | None = None
    ) -> list[Reply | Exception]:
        """Answer a batch, for as long as `wanted` returns True. Raises FcitError where the run cannot
        answer at all."""
        with TemporaryDirectory(prefix="fcit-serve-") as folder:
            try:
                with enough_memory("answering", "start fcit serve with a lower --batch"):
                    return self._batch(questions, Path(folder), wanted)
            finally:
                self.worker.model.forget()
                if self.worker.method.identity:
                    self.worker.encoder.cache.clear()

    def _batch(
        self, questions: Sequence[Question], folder: Path, wanted: Callable[[], bool] | None
    ) -> list[Reply | Exception]:
        images = [folder / str(at) for at in range(len(questions))]
        for path, question in zip(images, questions, strict=True):
            path.write_bytes(question.image)
        pairs = zip(questions, images, strict=True)
        lengths = [self._length(question.prompt, path) for question, path in pairs]
        fitting = [at for at, length in enumerate(lengths) if length < self.context]
        samples = [Sample("", "", "", questions[at].prompt, ("",)) for at in fitting]
        data = Data(samples, [images[at] for at in fitting])
        limits = [
            min(questions[at].limit or self.default, self.tokens, self.context - lengths[at])
            for at in fitting
        ]
        worker = self.worker
        encoder = worker.encoder if worker.method.identity else None
        model, method, state = worker.model, worker.method, worker.placed
        replies = iter(
            complete(model, encoder, method, state, data, limits, wanted) if fitting else ()
        )
        return [
            next(replies) if length < self.context else self._too_long(length) for length in lengths
        ]

    def _length(self, prompt: str, image: Path) -> int:
        """A question's number of tokens, its image's included. Raises FcitError, without the temporary
        file's name, where the model takes no such image."""
        model = self.worker.model
        try:
            (features,) = model.features([image])
        except FcitError as error:
            raise FcitError(str(error).removeprefix(f"{image}: ")) from None
        return model.chat.encode([prompt], [features.text])["input_ids"].shape[1]

    def _too_long(self, length: int) -> Refusal:
        message = f"the question has {length} tokens; the model has room for {self.context} in all"
        return Refusal(400, message, "context_length_exceeded", "messages")
