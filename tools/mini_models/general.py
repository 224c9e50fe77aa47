"""Held-out questions of the pretraining mixture as a data folder, to measure what tuning makes a model
forget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fcit.benchmark.general import GENERAL
from fcit.files import folder_aside, write_json
from fcit.seeds import numpy_stream
from fcit.types import FcitError
from tools.mini_models import generic
from tools.mini_models.chunks import conversations


def write(root: Path, count: int, progress: Callable[[int], None] | None = None) -> None:
    """Write `count` questions, one per picture, to a new folder `root`. They are the same for all
    seeds.

    The folder is written completely or not at all. `progress` receives the number done. Raises
    FcitError if it holds something already, or cannot be written.
    """
    records: list[dict[str, str]] = []
    try:
        with folder_aside(root) as aside:
            (aside / "datasets" / GENERAL).mkdir(parents=True)
            for number in range(1, count + 1):
                rng = numpy_stream(0, "general", number)
                scene = generic.sample(rng)
                _, turns = next(conversations(rng, scene))
                prompt, answer = turns[0]
                image = f"{GENERAL}/{number:06d}.png"
                scene.image.save(aside / "datasets" / image, format="PNG")
                records.append(
                    {"question_id": str(number), "image": image, "text": prompt, "answer": answer}
                )
                if progress:
                    progress(number)
            write_json(aside / "instructions" / GENERAL / "test.json", records)
    except OSError as error:
        raise FcitError(f"{root}: cannot be written: {error.strerror or error}") from None
