"""What a recipe reads: samples of its data folder or of the mini suite, and the general questions."""

from collections import Counter
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

from fcit.benchmark import datasets, general, layout, missing
from fcit.benchmark.datasets import Dataset, Split
from fcit.benchmark.general import GENERAL
from fcit.benchmark.partition import some
from fcit.benchmark.pictures import broken
from fcit.benchmark.rules import Rule
from fcit.recipe.config import Config
from fcit.types import FcitError, Sample, did_you_mean, naming
from fcit.watch import Watch
from fcit.worker.cache import cache_folder, made_by


class Samples:
    """Reads each dataset once. rules_elsewhere: datasets that the recipe scores by a rule of its own,
    which this client does not have."""

    def __init__(self, config: Config, rules_elsewhere: Collection[str] = ()):
        self.config, self.rules_elsewhere = config, rules_elsewhere
        self.dropped: dict[str, dict[str, dict[str, int]]] = {}
        """With `data.missing = "drop"`: by dataset and split the images that are missing or cannot be
        read, of those looked at so far, and how many records each has."""
        self.known: dict[tuple[str, Split], list[Sample]] = {}
        """What was read so far, by dataset and split."""
        self._datasets: dict[str, Dataset] = {}
        self._starts: dict[str, tuple[Path, ...]] = {}

    @cached_property
    def root(self) -> Path:
        """The data folder: the recipe's, or the mini suite of its seed and sizes in the cache."""
        if self.config.data.root:
            root = Path(self.config.data.root)
            if not root.is_dir():
                raise FcitError(f"data.root: {root}: no such folder")
            return root
        train, test = self.config.data.counts
        return cache_folder() / f"mini-{made_by()}-seed{self.config.seed}-{train}x{test}"

    @cached_property
    def images(self) -> tuple[Path, ...]:
        """The recipe's folders of images; empty: `datasets/` of the root."""
        folders = tuple(map(Path, self.config.data.images))
        if missing := [str(folder) for folder in folders if not folder.is_dir()]:
            raise FcitError(f"data.images: no such folder: {', '.join(missing)}")
        return folders

    @cached_property
    def rules(self) -> dict[str, Rule]:
        """The recipe's own scoring rules by dataset; the data folder must have these datasets."""
        return datasets.own_rules(self.root, self.config.data.rules, "data.rules")

    @cached_property
    def general(self) -> dict[str, tuple[Path, Dataset]]:
        """The data folder and dataset of the general questions, by the name that results have; none where
        they are not asked."""
        section = self.config.evaluation
        if not section.general_questions or (self.config.model.path and not section.general):
            return {}
        return general.questions(section.general)

    def dataset(self, name: str) -> Dataset:
        """A dataset of the data folder, with its scoring rule. Raises FcitError on a client with data of
        its own that lacks the file of a rule of the recipe's own."""
        if name in self.general:
            return self.general[name][1]
        if name in self.rules_elsewhere:
            raise FcitError(
                f"data.rules: the recipe scores {name} by a rule of its own; name this client's copy of "
                f'its file in --node-config: rules="{name}=/path/to/rule.py"'
            )
        if name not in self._datasets:
            self._datasets[name] = datasets.find(name, self.root, self.rules)
        return self._datasets[name]

    def prepare(self, names: Sequence[str], watch: Watch) -> None:
        """Make the mini suite if it is needed. Raise FcitError where these datasets lack anything, or
        there is no Java for the reference scores of captions."""
        if not self.config.data.root and not self.root.is_dir():
            from fcit import suite

            for name in names:
                if name not in datasets.DATASETS:
                    hint = did_you_mean(name, datasets.DATASETS)
                    raise FcitError(f"setting: the mini suite has no dataset {name!r}{hint}")
            train, test = self.config.data.counts
            watch.say(f"making the mini suite in {self.root}")
            with watch.bar("mini suite", 12 * (train + test)) as step:
                seed = self.config.seed
                try:
                    suite.write(self.root, seed, train, test, progress=lambda done, _: step(done))
                except FcitError:
                    if not self.root.is_dir():  # else another run has just made it
                        raise
        scored = [self.dataset(name) for name in names]
        with naming("data.root"):
            missing.require(self.root, scored, self.images)
        for dataset in (*scored, *(dataset for _, dataset in self.general.values())):
            dataset.rule.require(self.config.evaluation.scoring)

    def samples(self, dataset: str, part: Split) -> list[Sample]:
        """A dataset's training or test samples (as many as the recipe says)."""
        key = dataset, part
        if key not in self.known:
            data, evaluation = self.config.data, self.config.evaluation
            root = self.general[dataset][0] if dataset in self.general else self.root
            samples = self.sound(self.dataset(dataset).read(root, part), part)
            limits = (data.train,) if part == "train" else (data.test, evaluation.limit)
            if dataset in self.general:
                limits = (evaluation.general_questions,)
            if dataset == GENERAL and dataset in self.general:
                samples = samples[: evaluation.general_questions]  # they are in random order
            elif any(limits):
                count, name = min(filter(None, limits)), f"{dataset}/{part}"
                samples = some(samples, count, self.config.seed, name)
            self.known[key] = samples
        return self.known[key]

    def sound(self, samples: list[Sample], part: Split) -> list[Sample]:
        """Of a task's or dataset's samples those whose image can be read, where the recipe drops others.

        Raises FcitError where that is none of them.
        """
        if self.config.data.missing == "error" or not samples:
            return samples
        paths = [self.image(sample) for sample in samples]
        faulty = broken(paths)
        kept = [sample for sample, path in zip(samples, paths, strict=True) if path not in faulty]
        for name in dict.fromkeys(sample.dataset for sample in samples):
            images = sorted(
                sample.image
                for sample, path in zip(samples, paths, strict=True)
                if sample.dataset == name and path in faulty
            )
            if images:
                self.dropped.setdefault(name, {})[part] = dict(Counter(images))
        if not kept:
            raise FcitError(
                f"{samples[0].dataset}: all images of its {part} records are missing or cannot be read, "
                f'{paths[0]} first; data.missing = "drop" leaves nothing'
            )
        return kept

    def assume(self, dataset: str, train: int, test: int) -> None:
        """Plan with so many samples of a dataset that is not made yet; nothing is in them."""
        blank = Sample("", dataset, "", "", ("",))
        limit = self.config.evaluation.limit
        self.known[dataset, "train"] = [blank] * train
        self.known[dataset, "test"] = [blank] * (min(test, limit) if limit else test)

    def image(self, sample: Sample) -> Path:
        """Where a sample's image is."""
        name = sample.dataset
        if name not in self._starts:  # looked up once: there are many samples
            general = name in self.general
            root, images = (self.general[name][0], ()) if general else (self.root, self.images)
            self._starts[name] = self.dataset(name).image_folders(root, images)
        return layout.locate(self._starts[name], sample.image)
