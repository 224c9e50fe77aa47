"""joint: federated fine-tuning on all datasets at once, in one stage (a reference point)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from fcit.methods.base import Method
from fcit.methods.multitask import passes
from fcit.types import Setting, Stage, Task


@dataclass(frozen=True)
class Joint(Method):
    """What finetune would reach if no data came late and none went: nothing can be forgotten.

    It has the budget of a continual run. Rounds: as many as all stages have together, with as many
    clients each, so as many turns and bytes as finetune. Data: every client holds what it holds in the
    setting, of all datasets together. Samples: a turn trains on a random part of them, drawn anew, so
    large that a sample is expected to be trained on as often as in the continual run
    (`multitask.passes`): with eight stages and one local epoch, an eighth. Where a setting's slots favour
    some datasets (task-het: 0.6 to 1.8 passes with the paper's numbers), every dataset gets the mean.
    """

    single_row: ClassVar[bool] = True
    reference: ClassVar[bool] = True

    def reshape(self, setting: Setting) -> Setting:
        rounds = sum(map(setting.rounds_of, setting.stages))
        clients = sorted({client for stage in setting.stages for client in setting.pool(stage)})
        turns = rounds * setting.per_round / len(clients)
        stage = Stage((Task("all", setting.datasets),), rounds, tuple(clients))
        return replace(setting, stages=(stage,), epochs=passes(setting) / turns)
