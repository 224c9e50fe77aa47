"""Facts about a data folder: sizes, wordings, format lines, majorities, and which datasets look alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fcit.benchmark import datasets
from fcit.benchmark.datasets import NO_RULES, Dataset
from fcit.benchmark.rules import Mode, Rule
from fcit.types import FcitError, Sample

Kind = Literal["text", "image", "both"]
Embed = Callable[[Literal["text", "image"], Sequence[str], Sequence[Path]], Any]
"""Rows of features, one a sample, of prompts or image files: an identity encoder's `embed`."""
Tokens = Mapping[str, Mapping[Kind, np.ndarray]]

SAMPLES = 200
"""Training samples of a dataset that its tokens are the mean of, the first ones of the file."""
COLUMNS = (
    "dataset",
    "train",
    "test",
    "training prompts",
    "new at test",
    "format line",
    "shared with",
    "answers",
    "commonest",
    "its share",
    "chance",
)


@dataclass(frozen=True)
class Neighbour:
    """The other dataset whose identity token is most like one's own, and their cosine."""

    dataset: str
    cosine: float


@dataclass(frozen=True)
class Stats:
    """What one dataset is like; shares and chance are percent.

    `prompts` counts distinct training prompts. `new` is the share of test prompts that no training
    prompt of the dataset repeats word for word. `form` is the commonest last line of the training
    prompts, `formed` its share; `shared` are the other datasets with the same one. `common` is the
    commonest training answer (the first reference of a caption). `nearest` is empty without encoder.
    """

    dataset: str
    train: int
    test: int
    prompts: int
    new: float
    form: str
    formed: float
    shared: tuple[str, ...]
    answers: int
    common: str
    share: float
    chance: float
    nearest: Mapping[Kind, Neighbour] = field(default_factory=dict)


def collect(
    root: Path,
    names: Sequence[str] | None,
    scoring: Mode,
    embed: Embed | None = None,
    progress: Callable[[int, int], None] | None = None,
    images: Sequence[Path] = (),
    rules: Mapping[str, Rule] = NO_RULES,
) -> list[Stats]:
    """Facts about the datasets `names` below `root`, or about all that are there.

    `scoring` is the mode of `chance`. With `embed`, images are read too and datasets compared.
    `progress` is told (datasets done, datasets in all). `images`: see `datasets.image_folders`. `rules`:
    rules of your own by dataset. Raises FcitError where files are missing or malformed, and as
    `Dataset.chance` does.
    """
    if not root.is_dir():
        raise FcitError(f"{root}: no such folder")
    wanted = datasets.present(root) if names is None else list(dict.fromkeys(names))
    if not wanted:
        raise FcitError(f"{root}: instructions/ holds none of the datasets' folders")
    known = [datasets.find(name, root, rules) for name in wanted]
    datasets.require(root, known, images)
    found: list[Stats] = []
    own: dict[str, Mapping[Kind, np.ndarray]] = {}
    for done, dataset in enumerate(known, 1):
        train, test = (dataset.read(root, split) for split in ("train", "test"))
        found.append(_alone(dataset, train, test, scoring))
        if embed:
            own[dataset.name] = tokens(embed, root, train[:SAMPLES], images)
        if progress:
            progress(done, len(wanted))
    near = nearest(own)
    return [_among(one, found, near.get(one.dataset, {})) for one in found]


def tokens(
    embed: Embed, root: Path, samples: Sequence[Sample], images: Sequence[Path] = ()
) -> dict[Kind, np.ndarray]:
    """The identity tokens of samples: means [d] of their text and of their image features."""
    prompts = [sample.prompt for sample in samples]
    paths = [datasets.image_path(root, sample, images) for sample in samples]
    kinds: tuple[Literal["text", "image"], ...] = ("text", "image")
    return {
        kind: np.asarray(embed(kind, prompts, paths), dtype=np.float64).mean(axis=0)
        for kind in kinds
    }


def nearest(own: Tokens) -> dict[str, dict[Kind, Neighbour]]:
    """Each dataset's nearest other one by text, by image, and by the mean of both cosines.

    `own` maps datasets to their tokens [d]. The first of equals wins; a lone dataset has none.
    """
    names = list(own)
    if len(names) < 2:
        return {}
    alike: dict[Kind, np.ndarray] = {}
    for kind in ("text", "image"):
        rows = np.stack([own[name][kind] for name in names])
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        alike[kind] = rows @ rows.T
    alike["both"] = (alike["text"] + alike["image"]) / 2
    found: dict[str, dict[Kind, Neighbour]] = {name: {} for name in names}
    for kind, cosines in alike.items():
        others = cosines - 3 * np.eye(len(names))  # below every cosine: nobody is his own neighbour
        for at, name in enumerate(names):
            best = int(others[at].argmax())
            found[name][kind] = Neighbour(names[best], float(cosines[at, best]))
    return found


def rows(found: Sequence[Stats]) -> list[tuple[str, ...]]:
    """The facts as lines of a table, in the order of COLUMNS."""
    return [
        (
            one.dataset,
            str(one.train),
            str(one.test),
            str(one.prompts),
            f"{one.new:.0f} %",
            one.form if one.formed == 100 else f"{one.form} ({one.formed:.0f} %)",
            ", ".join(one.shared) or "-",
            str(one.answers),
            one.common,
            f"{one.share:.1f} %",
            f"{one.chance:.1f} %",
        )
        for one in found
    ]


def neighbours(found: Sequence[Stats]) -> list[tuple[str, ...]]:
    """Dataset, then its nearest other one and their cosine by text, image and both; [] without."""
    kinds: tuple[Kind, ...] = ("text", "image", "both")
    return [
        (
            one.dataset,
            *(f"{one.nearest[kind].dataset} {one.nearest[kind].cosine:.3f}" for kind in kinds),
        )
        for one in found
        if one.nearest
    ]


def _alone(
    dataset: Dataset, train: Sequence[Sample], test: Sequence[Sample], scoring: Mode
) -> Stats:
    prompts = {sample.prompt for sample in train}
    forms = Counter(sample.prompt.strip().rsplit("\n", 1)[-1] for sample in train)
    answers = Counter(sample.answers[0] for sample in train)
    (form, formed), (common, times) = forms.most_common(1)[0], answers.most_common(1)[0]
    return Stats(
        dataset=dataset.name,
        train=len(train),
        test=len(test),
        prompts=len(prompts),
        new=_percent(sum(sample.prompt not in prompts for sample in test), len(test)),
        form=form,
        formed=_percent(formed, len(train)),
        shared=(),
        answers=len(answers),
        common=common,
        share=_percent(times, len(train)),
        chance=dataset.chance(train, test, scoring),
    )


def _among(one: Stats, all_of_them: Sequence[Stats], near: Mapping[Kind, Neighbour]) -> Stats:
    shared = tuple(
        other.dataset for other in all_of_them if other is not one and other.form == one.form
    )
    return replace(one, shared=shared, nearest=near)


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole
