"""The mini suite: twelve seeded miniatures of the benchmark's datasets, in the official layout.

Sample i of a split has its own random stream, so a larger suite extends a smaller one. A hash of
the image decides which split may use it: no test image is a training image of any dataset. A third
of the test prompts is worded as no training prompt is.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from fcit.benchmark import layout
from fcit.benchmark.datasets import DATASETS, Split
from fcit.files import folder_aside, modules
from fcit.seeds import numpy_stream
from fcit.suite.drawn import DATA, Drawn
from fcit.types import FcitError, Sample

HELPERS = ("charts", "draw", "drawn")

GENERATORS: dict[str, ModuleType] = {
    module.NAME: module
    for module in (import_module(f"{__name__}.{name}") for name in modules(__name__, HELPERS))
}
"""Each dataset's generator by name: a file of this folder, whose `sample(rng, split)` draws a sample."""

_ATTEMPTS = 200


def write(
    root: Path,
    seed: int = 0,
    train: int = 1000,
    test: int = 200,
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the mini suite to `root`: `train` and `test` samples a dataset, the same for one seed.

    The folder appears whole or not at all. `progress` is told (samples done, samples in all). Raises
    `FcitError` for a root that holds anything, and for an unknown dataset name.
    """
    wanted = tuple(GENERATORS) if names is None else tuple(dict.fromkeys(names))
    if stranger := next((name for name in wanted if name not in GENERATORS), None):
        raise FcitError(f"mini suite: no dataset {stranger!r}; there are {', '.join(GENERATORS)}")
    total, done = len(wanted) * (train + test), 0
    parts: list[tuple[str, Split, int]] = [
        (name, split, count)
        for name in wanted
        for split, count in zip(("train", "test"), (train, test), strict=True)
    ]
    try:
        with folder_aside(root) as folder:
            (images,) = layout.images(folder)
            for name, split, count in parts:
                samples: list[Sample] = []
                pattern: str = DATA[name]["images"][split == "test"]
                (images / pattern).parent.mkdir(parents=True, exist_ok=True)
                for number, drawn in enumerate(draws(seed, name, split, count), 1):
                    path = pattern.format(number)
                    drawn.image.save(images / path, format="PNG")
                    identifier = f"{name}-{split}-{number}"
                    texts = (drawn.prompt, drawn.answers, drawn.more)
                    samples.append(Sample(identifier, name, path, *texts))
                    done += 1
                    if progress:
                        progress(done, total)
                DATASETS[name].write(folder, split, samples, DATA[name].get("test_fields", {}))
    except OSError as error:
        raise FcitError(f"{root}: the mini suite cannot be written: {error}") from None


def draws(seed: int, name: str, split: Split, count: int) -> Iterator[Drawn]:
    """The first `count` samples of a split: no image and prompt twice, no image of the other split.

    Raises `FcitError` when the dataset's generator has nothing new left to draw.
    """
    seen: set[tuple[bytes, str]] = set()
    for index in range(count):
        for attempt in range(_ATTEMPTS):
            rng = numpy_stream(seed, "mini", name, split, index, attempt)
            drawn: Drawn = GENERATORS[name].sample(rng, split)
            image = hashlib.sha256(drawn.image.tobytes()).digest()
            pair = (image, drawn.prompt)
            if (image[0] % 2 == 1) == (split == "test") and pair not in seen:
                seen.add(pair)
                yield drawn
                break
        else:
            raise FcitError(
                f"mini suite, {name}: no new {split} sample after {index} of {count}; "
                f"ask for fewer (--{split})"
            )
