"""individual: one federated model per dataset, each evaluated with its own (a reference point)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from fcit.methods.base import Method, Query, with_projector
from fcit.types import FcitError, Setting, Stage, State, Task, Turn, Weights


@dataclass(frozen=True)
class Individual(Method):
    """Every dataset gets an adapter and a projector of its own, and all of a stage's rounds."""

    once: ClassVar[bool] = True
    answers_any: ClassVar[bool] = False
    opens: ClassVar = "dataset"

    def reshape(self, setting: Setting) -> Setting:
        """A stage per dataset: as long as the longest that teaches it, with all who may learn it."""
        alone: list[Stage] = []
        for name in setting.datasets:
            homes = [stage for stage in setting.stages if name in stage.datasets]
            rounds = max(setting.rounds_of(stage) for stage in homes)
            alone.append(Stage((Task(name, (name,)),), rounds, setting.holders(name)))
        return replace(setting, stages=tuple(alone))

    def start(self, blank: Weights, projector: Weights, seed: int = 0) -> State:
        own = blank if self.projector == "frozen" else with_projector(blank, projector)
        return State({}, {"blank": own})

    def begin(self, state: State, stage: Stage) -> State:
        return self.open(state, stage.tasks[0].name)

    def adapter(self, state: State, turn: Turn) -> str:
        return turn.task.name

    def route(self, state: State, query: Query) -> Mapping[str, float]:
        if query.dataset not in state.adapters:
            raise FcitError("individual answers questions of its datasets only; it cannot be asked")
        return {name: float(name == query.dataset) for name in state.adapters}
