"""multitask: centralised training on all data at once, the upper reference point."""

from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar

from fcit.methods.base import Method
from fcit.types import Setting, Stage, Task


@dataclass(frozen=True)
class Multitask(Method):
    """One client holds all data and trains once. It makes as many epochs as a client is expected to make
    in a homogeneous stage (rounds x per_round / clients, the mean over stages, at least 1); the last of
    2.5 epochs stops half-way."""

    single_row: ClassVar[bool] = True
    reference: ClassVar[bool] = True
    federated: ClassVar[bool] = False

    def reshape(self, setting: Setting) -> Setting:
        passes = setting.epochs * fmean(
            setting.rounds_of(stage) * setting.per_round / len(setting.pool(stage))
            for stage in setting.stages
        )
        return replace(
            setting,
            stages=(Stage((Task("all", setting.datasets),)),),
            clients=1,
            per_round=1,
            rounds=1,
            epochs=max(1.0, passes),
        )
