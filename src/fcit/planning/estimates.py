"""Lengths of samples, and time of training: estimated from lengths, or timed on a few real steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from statistics import fmean
from typing import TYPE_CHECKING

from fcit.recipe.config import Config
from fcit.rounds.client import Data
from fcit.types import FcitError, Job, Sample
from fcit.worker.experiment import Experiment
from fcit.worker.model import ModelWorker

if TYPE_CHECKING:
    import torch

    from fcit.models.size import ModelSize, TokenCounter

CHARACTERS = 3.5
"""Of a token, where there is no tokenizer to ask."""

TEMPLATE = 16
"""Tokens of a chat template around one question and answer, where there is no tokenizer."""

LAST_ROUND_SAMPLES = 128
"""Samples that time a last round's turn: as many as EWC measures the Fisher information on."""

SMALL = 50_000_000
"""Parameters up to which real steps are timed without being asked for: they take seconds, and matrix
products are a small part of such a model's time."""


@dataclass(frozen=True)
class SampleLengths:
    """Tokens of training samples."""

    mean: float
    """The image's tokens included."""
    answer_mean: float
    longest: int
    longest_answer: int


Pictured = tuple[Sample, tuple[int, int]]
"""A sample, and the width and height of its image in pixels."""


def sample_lengths(
    experiment: Experiment,
    size: ModelSize,
    samples: Sequence[Pictured],
    heaviest: Sequence[Pictured],
    notes: list[str],
) -> SampleLengths:
    """Lengths of some samples; `size` knows the largest image, and `heaviest` have the longest texts.

    Samples count with the image of median size, but those too long with it, and the heaviest, with their
    own. Lengths are guessed from characters where the model's tokenizer is not on this disk. Raises
    FcitError for samples that training would refuse.
    """
    from fcit.models.size import TokenCounter

    config = experiment.config
    limit, largest = config.training.max_length, size.image_tokens
    if not samples:
        notes.append("lengths: no data here; each sample is taken to have 100 tokens and its image")
        length = min(limit, largest + 100)
        return SampleLengths(length, 10, length, 10)
    model = config.model
    try:
        counter = TokenCounter(experiment.model_path(), model.identity, model.template)
    except FcitError as error:
        notes.append(f"{error}; a token is taken to be {CHARACTERS} characters")
        lengths, long = (
            [(*_guess(sample, largest, limit), largest) for sample, _ in rows]
            for rows in (samples, heaviest)
        )
    else:
        median = sorted((image for _, image in samples), key=prod)[len(samples) // 2]
        whole = _counted(counter, [(sample, median) for sample, _ in samples], sys.maxsize)
        rows = [
            (sample, median if length <= limit else image)
            for (sample, image), (length, *_) in zip(samples, whole, strict=True)
        ]
        lengths, long = _counted(counter, rows, limit), _counted(counter, heaviest, limit)
    texts = [length - tokens for length, _, tokens in (*lengths, *long)]
    return SampleLengths(
        fmean(length for length, *_ in lengths),
        fmean(answer for _, answer, _ in lengths),
        min(limit, max(texts) + largest),
        max(answer for _, answer, _ in (*lengths, *long)),
    )


def _counted(
    counter: TokenCounter, rows: Sequence[Pictured], limit: int
) -> list[tuple[int, int, int]]:
    """Each sample's tokens, those of its answers, and those of its image."""
    images = {image: counter.image(image)[:2] for image in {image for _, image in rows}}
    placeholders = [images[image][0] for _, image in rows]
    lengths = counter.lengths([sample for sample, _ in rows], placeholders, limit)
    return [(*length, images[image][1]) for length, (_, image) in zip(lengths, rows, strict=True)]


def _guess(sample: Sample, image_tokens: int, limit: int) -> tuple[int, int]:
    turns = [(sample.prompt, sample.answers[0]), *sample.more]
    answered = sum(round(len(answer) / CHARACTERS) + 1 for _, answer in turns)
    asked = sum(round(len(prompt) / CHARACTERS) + TEMPLATE for prompt, _ in turns)
    return min(limit, image_tokens + asked + answered), answered


# -- time --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Times:
    """Seconds of the parts of a run."""

    step: float
    """One training step."""
    answer: float
    """One answer."""
    last_round: float = 0.0
    """What a client does additionally in a stage's last round."""


def products_per_second(device: str, dtype: torch.dtype, threads: int) -> float:
    """Multiplications and additions per second in matrix products, measured in under a second."""
    import torch
    from torch.utils.benchmark import Timer

    side = 1024 if device == "cpu" else 8192
    a = torch.randn(side, side, device=device).to(dtype)
    timer = Timer("a @ a", globals={"a": a}, num_threads=threads)
    return 2 * side**3 / timer.blocked_autorange(min_run_time=0.3).mean


def estimated_times(
    size: ModelSize, lengths: SampleLengths, rate: float, trained: tuple[int, int], config: Config
) -> Times:
    """A lower bound: matrix products alone, at `rate` per second. trained: the run's samples and steps.

    A frozen layer costs as much backward as forward; checkpointing costs one more forward. The vision
    tower sees a new image once.
    """
    attention = 4 * size.hidden * size.depth
    forward = 2 * size.decoder * lengths.mean + attention * lengths.mean**2
    vision = 2 * size.vision * size.patches
    passes = 3 if config.training.checkpointing else 2
    head = 2 * size.hidden * size.vocabulary
    train = passes * (forward + head * lengths.answer_mean) + vision
    words = min(lengths.answer_mean, config.evaluation.max_new_tokens)
    answer = forward + words * (2 * size.decoder + head + attention * lengths.mean) + vision
    return Times(train / rate * trained[0] / trained[1], answer / rate)


def measured_times(
    config: Config, usual: Job, last: Job, data: Data, batch: int, questions: int
) -> Times:
    """Seconds of a few real steps and answers in this process, on samples of every dataset.

    usual: a job of any round but a stage's last; last: one of the last, whose message tells where a
    method wants more of its clients then. batch: samples of a step; questions: at most so many are
    answered at once.
    """
    # Where clients have less than a whole batch, their steps are smaller.
    training = replace(config.training, batch_size=batch)
    model = replace(config.model, cache_features=False)  # a plan writes nothing
    worker = ModelWorker(replace(config, training=training, model=model))
    usual, last = replace(usual, epochs=1), replace(last, epochs=1)

    def train(job: Job, count: int) -> tuple[float, float]:
        worker.experiment.data = lambda turn: _spread(data, count)  # type: ignore[method-assign]
        begun = time.perf_counter()
        update, _ = worker.train(job, {})
        return time.perf_counter() - begun, update.metrics["steps"]

    train(usual, 4 * batch)  # fills the feature cache, among other things that happen once
    seconds, steps = min(train(usual, 4 * batch) for _ in range(2))  # other programs take time too
    step, last_round = seconds / steps, 0.0
    if last.received.extras.keys() != usual.received.extras.keys():
        train(usual, LAST_ROUND_SAMPLES)
        seconds, steps = train(last, LAST_ROUND_SAMPLES)
        last_round = max(0.0, seconds - steps * step)
    worker.place(worker.method.complete(worker.model, usual.received, {}))
    count, spent = min(config.evaluation.batch_size, questions), list[float]()
    for name in dict.fromkeys(sample.dataset for sample in data.samples):
        own = [at for at, sample in enumerate(data.samples) if sample.dataset == name]
        some = _spread(_pick(data, own), count)
        begun = time.perf_counter()
        worker.answer(some)
        spent.append((time.perf_counter() - begun) / count)
    return Times(step, fmean(spent), last_round)


def _spread(data: Data, count: int) -> Data:
    """So many samples from all over the data, repeated where it has too few."""
    size = len(data.samples)
    return _pick(data, [i * size // count if count < size else i % size for i in range(count)])


def _pick(data: Data, chosen: Sequence[int]) -> Data:
    return Data([data.samples[at] for at in chosen], [data.images[at] for at in chosen])
