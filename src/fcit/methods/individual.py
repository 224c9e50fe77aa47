"""individual: one federated model per dataset, each evaluated with its own (a reference point)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from fcit.methods.base import Gating, Method, with_projector
from fcit.types import Setting, Stage, State, Task, Turn, Weights


@dataclass(frozen=True)
class Individual(Method):
    """Every dataset gets an adapter and a projector of its own, and all of a stage's rounds. In a setting
    of your own, where a task returns or shares a stage, this is not the budget of a continual run."""

    single_row: ClassVar[bool] = True
    reference: ClassVar[bool] = True

    def reshape(self, setting: Setting) -> Setting:
        """A stage per dataset: as many rounds as its longest stage has, with all clients who hold it."""
        alone: list[Stage] = []
        for name in setting.datasets:
            stages = [stage for stage in setting.stages if name in stage.datasets]
            rounds = max(setting.rounds_of(stage) for stage in stages)
            alone.append(Stage((Task(name, (name,)),), rounds, setting.holders(name)))
        return replace(setting, stages=tuple(alone))

    def start(self, blank: Weights, projector: Weights, seed: int = 0) -> State:
        if self.projector != "shared":
            return super().start(blank, projector, seed)
        return State({}, {"blank": with_projector(blank, projector)})

    def begin(self, state: State, stage: Stage) -> State:
        return self.open(state, stage.tasks[0].name)

    def adapter(self, state: State, turn: Turn) -> str:
        return turn.task.name

    @property
    def gating(self) -> Gating:
        """A question's dataset must be known."""
        return Gating("choose")
