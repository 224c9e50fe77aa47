"""Facts about a data folder: sizes, wordings, format lines, majorities, and which datasets look alike."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fcit.benchmark import datasets, layout, missing
from fcit.benchmark.datasets import NO_RULES, Dataset
from fcit.benchmark.partition import some
from fcit.benchmark.rules import Mode, Rule
from fcit.types import FcitError, Sample
from fcit.watch import Silent, Watch

Kind = Literal["text", "image", "both"]
Embed = Callable[[Literal["text", "image"], Sequence[str], Sequence[Path]], Any]
"""Rows of features, one a sample, of prompts or image files: an identity encoder's `embed`."""
Tokens = Mapping[str, Mapping[Kind, np.ndarray]]

SAMPLES = 200
"""Training samples of a dataset that its tokens are the mean of."""


@dataclass(frozen=True)
class Neighbour:
    """The other dataset whose identity token is most like one's own, and their cosine."""

    dataset: str
    cosine: float


@dataclass(frozen=True)
class Stats:
    """What one dataset is like; shares and chance are percent."""

    dataset: str
    train: int
    test: int
    prompts: int
    """Distinct training prompts."""
    new: float
    """The share of test prompts that no training prompt repeats word for word."""
    form: str
    """The commonest last line of the training prompts."""
    formed: float
    """Its share."""
    shared: tuple[str, ...]
    """The other datasets with the same one."""
    answers: int
    """Distinct training answers (the first reference of a caption)."""
    common: str
    """The commonest training answer."""
    share: float
    """Its share."""
    chance: float
    """The score of the best constant answer."""
    nearest: Mapping[Kind, Neighbour] = field(default_factory=dict)
    """Empty where datasets were not compared."""


def collect(
    root: Path,
    scoring: Mode,
    embed: Embed | None = None,
    images: Sequence[Path] = (),
    rules: Mapping[str, Rule] = NO_RULES,
    watch: Watch | None = None,
) -> list[Stats]:
    """Facts about the datasets below `root`.

    `scoring` is the mode of `chance`. With `embed`, images are read too and datasets compared.
    `images`: see `Dataset.image_folders`. `rules`: rules of your own by dataset. Raises FcitError where
    files are missing or malformed, and as `Dataset.chance` does.
    """
    layout.require_folder(root)
    names = datasets.present(root)
    if not names:
        raise FcitError(
            f"{root}: {layout.instructions(root).name}/ holds none of the datasets' folders"
        )
    chosen = [datasets.find(name, root, rules) for name in names]
    missing.require(root, chosen, images)
    facts: list[Stats] = []
    own: dict[str, Mapping[Kind, np.ndarray]] = {}
    with (watch or Silent()).bar("datasets", len(chosen)) as step:
        for done, dataset in enumerate(chosen, 1):
            train, test = (dataset.read(root, split) for split in ("train", "test"))
            facts.append(_alone(dataset, train, test, scoring))
            if embed:
                samples = some(train, SAMPLES, 0, f"stats/{dataset.name}")
                own[dataset.name] = tokens(embed, root, dataset, samples, images)
            step(done)
    near, forms = nearest(own), defaultdict[str, list[str]](list)
    for stats in facts:
        forms[stats.form].append(stats.dataset)
    return [
        replace(
            stats,
            shared=tuple(name for name in forms[stats.form] if name != stats.dataset),
            nearest=near.get(stats.dataset, {}),
        )
        for stats in facts
    ]


def tokens(
    embed: Embed,
    root: Path,
    dataset: Dataset,
    samples: Sequence[Sample],
    images: Sequence[Path] = (),
) -> dict[Kind, np.ndarray]:
    """The identity tokens of a dataset's samples: means [d] of their text and of their image features."""
    prompts = [sample.prompt for sample in samples]
    folders = dataset.image_folders(root, images)
    paths = [layout.locate(folders, sample.image) for sample in samples]
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
    neighbours: dict[str, dict[Kind, Neighbour]] = {name: {} for name in names}
    for kind, cosines in alike.items():
        others = cosines - 3 * np.eye(len(names))  # below every cosine: nobody is his own neighbour
        for at, best in enumerate(others.argmax(axis=1)):
            neighbours[names[at]][kind] = Neighbour(names[best], float(cosines[at, best]))
    return neighbours


def rows(facts: Sequence[Stats]) -> list[dict[str, str]]:
    """The facts as lines of a table, by column."""
    return [
        {
            "dataset": stats.dataset,
            "commonest": stats.common,
            "train": str(stats.train),
            "test": str(stats.test),
            "training prompts": str(stats.prompts),
            "new at test": f"{stats.new:.0f} %",
            "answers": str(stats.answers),
            "its share": f"{stats.share:.1f} %",
            "chance": f"{stats.chance:.1f} %",
        }
        for stats in facts
    ]


def neighbours(facts: Sequence[Stats]) -> list[tuple[str, ...]]:
    """Dataset, then its nearest other one and their cosine by text, image and both; [] without."""
    kinds: tuple[Kind, ...] = ("text", "image", "both")
    return [
        (
            stats.dataset,
            *(f"{stats.nearest[kind].dataset} {stats.nearest[kind].cosine:.3f}" for kind in kinds),
        )
        for stats in facts
        if stats.nearest
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
        new=100 * sum(sample.prompt not in prompts for sample in test) / len(test),
        form=form,
        formed=100 * formed / len(train),
        shared=(),
        answers=len(answers),
        common=common,
        share=100 * times / len(train),
        chance=dataset.chance(train, test, scoring),
    )
