"""multitask: centralised training on all data at once, a reference point."""

from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar

from fcit.methods.base import Method
from fcit.types import Setting, Stage, Task


@dataclass(frozen=True)
class Multitask(Method):
    """One client holds all data and trains once. It makes as many passes as a continual run is
    expected to make over a dataset, at least 1; of 2.5 passes the last one takes half of the samples.
    """

    single_row: ClassVar[bool] = True
    reference: ClassVar[bool] = True
    federated: ClassVar[bool] = False

    def reshape(self, setting: Setting) -> Setting:
        everything = Stage((Task("all", setting.datasets),))
        return centralised(setting, (everything,))


def centralised(setting: Setting, stages: tuple[Stage, ...]) -> Setting:
    """One client that trains once in every stage, on all data of its task."""
    epochs = max(1.0, passes(setting))
    return replace(setting, stages=stages, clients=1, per_round=1, rounds=1, epochs=epochs)


def passes(setting: Setting) -> float:
    """How often a sample is expected to be trained on in a setting's stages together: the mean over the
    datasets of turns that learn the dataset / clients that share its samples x epochs."""

    def turns(dataset: str) -> float:
        return sum(
            setting.rounds_of(stage)
            * setting.per_round
            * fmean(dataset in task.datasets for task in stage.tasks)
            for stage in setting.stages
        )

    return setting.epochs * fmean(turns(d) / len(setting.holders(d)) for d in setting.datasets)
