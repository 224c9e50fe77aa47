"""zeroshot: the base model without any training (a reference point)."""

from dataclasses import dataclass, replace
from typing import ClassVar

from fcit.methods.base import Method
from fcit.types import Setting, State, Weights


@dataclass(frozen=True)
class Zeroshot(Method):
    """No stage is trained; only the zero-shot accuracy is measured."""

    reference: ClassVar[bool] = True

    def reshape(self, setting: Setting) -> Setting:
        return replace(setting, stages=())

    def start(self, blank: Weights, projector: Weights, seed: int = 0) -> State:
        return State()
