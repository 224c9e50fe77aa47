"""What training takes in memory and time: from shapes and lengths, or from a few real steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from fcit.planning.counts import Picture
from fcit.recipe.config import Config
from fcit.rounds.client import Data
from fcit.types import FcitError, Job, Sample
from fcit.worker.experiment import Experiment
from fcit.worker.model import ModelWorker

if TYPE_CHECKING:
    import torch

    from fcit.models.memory import TrainingStep
    from fcit.models.size import ModelSize

LETTERS = 3.5
"""Characters of a token where there is no tokenizer to ask."""

AROUND = 16
"""Tokens of a chat template around one question and answer, then."""


MEASURED_ON = 128
"""Samples with which a last round's turn is timed: as many as EWC measures the Fisher information on."""


@dataclass(frozen=True)
class Spans:
    """Tokens of a training sample, its image's included, and of its answer: the mean, and the most."""

    length: float
    answer: float
    longest: int
    most: int


def spans(
    experiment: Experiment,
    size: ModelSize,
    samples: Sequence[Sample],
    pictures: Sequence[Picture],
    notes: list[str],
) -> Spans:
    """How long training samples are; guessed from their characters where the model's tokenizer is not
    on this disk, and without samples as the longest there may be. `pictures`: their images' sizes, of
    which `size` knows the largest; the mean goes by the one in the middle. Raises FcitError where
    training would: samples that are too long, images that the processor refuses."""
    from fcit.models.size import TokenCounter

    config = experiment.config
    limit, largest = config.training.max_length, size.image_tokens
    if not samples:
        notes.append("no data here: every sample is taken to be of 100 tokens beside its image")
        whole = min(limit, largest + 100)
        return Spans(whole, 10, whole, 10)
    middle = sorted(pictures, key=area)[len(pictures) // 2]
    try:
        counter = TokenCounter(
            experiment.model_path(), config.model.identity, config.model.template
        )
    except FcitError as error:
        notes.append(f"{error}; {LETTERS} characters are taken to be a token")
        tokens = largest
        rows = [_guess(one, tokens, limit) for one in samples]
    else:
        image, tokens, _ = counter.image(middle)
        rows = counter.lengths(samples, image, limit)
    whole, said = [row[0] for row in rows], [row[1] for row in rows]
    longest = min(limit, max(whole) + largest - tokens)
    return Spans(fmean(whole), fmean(said), longest, max(said))


def area(picture: Picture) -> int:
    """Pixels of an image."""
    return picture[0] * picture[1]


def _guess(sample: Sample, image: int, limit: int) -> tuple[int, int]:
    turns = [(sample.prompt, sample.answers[0]), *sample.more]
    said = sum(round(len(answer) / LETTERS) + 1 for _, answer in turns)
    asked = sum(round(len(prompt) / LETTERS) + AROUND for prompt, _ in turns)
    return min(limit, image + asked + said), said


def load(
    experiment: Experiment, job: Job, spans: Spans, images: int, number: int, device: str
) -> TrainingStep:
    """The heaviest pass of a run: `job` is a message of its last stage, `images` how many are seen in
    all, `number` the bytes of one."""
    from fcit.models.memory import QUANTIZED_BYTES, TrainingStep

    training, method = experiment.config.training, experiment.method
    received = job.received
    trained = len(method.trains(received))
    batch = min(training.micro_batch or training.batch_size, training.batch_size)
    return TrainingStep(
        batch=batch,
        length=spans.longest,
        answered=batch * spans.most,
        blocks=len(received.adapters),
        trained=trained,
        rank=method.rank,
        projector=method.projector != "frozen",
        step=training.batch_size,
        images=images,
        number=number,
        weight=QUANTIZED_BYTES.get(experiment.config.model.quantize, number),
        cpu=device == "cpu",
        dropout=training.dropout > 0,
        checkpointing=training.checkpointing,
    )


# -- time --------------------------------------------------------------------------------------------


def rate(device: str, dtype: torch.dtype, threads: int) -> float:
    """Multiplications and additions a second in matrix products, measured in a moment."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        side = 1024 if device == "cpu" else 8192
        a = torch.randn(side, side, device=device).to(dtype)
        (a @ a).sum().item()
        begun, times = time.perf_counter(), 0
        while times < 3 or time.perf_counter() - begun < 0.3:
            (a @ a).sum().item()
            times += 1
        return 2 * side**3 * times / (time.perf_counter() - begun)
    finally:
        torch.set_num_threads(before)


def seconds(size: ModelSize, spans: Spans, rate: float, config: Config) -> tuple[float, float]:
    """Of one training sample, and of one answer, in matrix products alone: a lower bound.

    A frozen layer costs as much backward as forward; recomputing costs one more. A new image is seen
    by the vision tower once, where features are kept.
    """
    attention = 4 * size.hidden * size.depth
    forward = 2 * size.decoder * spans.length + attention * spans.length**2
    seen = 2 * size.vision * size.patches
    passes = 3 if config.training.checkpointing else 2
    head = 2 * size.hidden * size.vocabulary
    train = passes * (forward + head * spans.answer) + seen
    words = min(spans.answer, config.evaluation.max_new_tokens)
    answer = forward + words * (2 * size.decoder + head + attention * spans.length) + seen
    return train / rate, answer / rate


@dataclass(frozen=True)
class Timed:
    """Seconds of one training step, of one answer, and of what a client of a stage's last round does
    besides."""

    step: float
    answer: float
    extra: float = 0.0


def measured(config: Config, usual: Job, last: Job) -> Timed:
    """The seconds of a few real steps and answers in this process. `usual` is a message of any round but
    a stage's last, `last` one of that; a method that wants more of its clients then says so in it."""
    site = ModelWorker(config)
    experiment, batch = site.experiment, config.training.batch_size
    data = experiment.data(usual.turn)

    def timed(job: Job, count: int) -> tuple[float, float]:
        few = Data(data.samples[:count], data.images[:count])
        site.experiment.data = lambda turn: few  # type: ignore[method-assign]
        begun = time.perf_counter()
        update, _ = site.train(job, {})
        return time.perf_counter() - begun, update.metrics["steps"]

    timed(usual, 4 * batch)  # features, and whatever else is only made once
    whole, steps = timed(usual, 4 * batch)
    step, extra = whole / steps, 0.0
    if last.received.extras.keys() != usual.received.extras.keys():
        timed(usual, MEASURED_ON)
        whole, steps = timed(last, MEASURED_ON)
        extra = max(0.0, whole - steps * step)
    site.place(usual.received)
    name = usual.turn.task.datasets[0]
    count = min(config.evaluation.batch_size, len(experiment.samples(name, "test")))
    asked = experiment.test(name, range(count))
    begun = time.perf_counter()
    site.answer(asked)
    return Timed(step, (time.perf_counter() - begun) / count, extra)
