"""lwf: Learning without Forgetting (Li & Hoiem 2016, arXiv 1606.09282), federated by FedAvg.

What the model said before a stage, to the stage's own inputs, is a second target of the stage: no old
data is kept, only the old adapter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from fcit.methods.base import Method, Model
from fcit.types import FcitError, Stage, State, Turn, Weights

if TYPE_CHECKING:
    from torch import Tensor

TEACHER = "teacher"
OLD_PROJECTOR = "teacher-projector"


@dataclass(frozen=True)
class Lwf(Method):
    """distillation_weight: lambda_o, the weight of the old model's answers.
    distillation_temperature: T of their softmax.

    The old answers are distributions over the vocabulary at the answer's tokens, all of them read
    with the true tokens before (teacher forcing); the paper's are those of a classifier's old heads.
    """

    distillation_weight: float = 1.0
    distillation_temperature: float = 2.0

    opens: ClassVar = "all"

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if not 0 <= self.distillation_weight < float("inf"):
            raise FcitError(
                f"method.distillation_weight: {self.distillation_weight} must be 0 or more"
            )
        if not 0 < self.distillation_temperature < float("inf"):
            raise FcitError(
                f"method.distillation_temperature: {self.distillation_temperature} must be above 0"
            )

    def begin(self, state: State, stage: Stage) -> State:
        """From the second stage on, the model as it now stands is the teacher."""
        if not state.adapters:
            return super().begin(state, stage)
        teacher = {TEACHER: state.adapters["0"]}
        if "projector" in state.extras:
            teacher[OLD_PROJECTOR] = state.extras["projector"]
        return replace(state, extras=state.extras | teacher)

    def send(self, state: State, turn: Turn) -> State:
        """The adapter and the projector, and those of the teacher (an adapter that stays frozen)."""
        sent = super().send(state, turn)
        if TEACHER not in state.extras:
            return sent
        old = {key: state.extras[key] for key in {OLD_PROJECTOR} & state.extras.keys()}
        return State(sent.adapters | {TEACHER: state.extras[TEACHER]}, sent.extras | old)

    def trains(self, received: State) -> list[str]:
        return ["0"]

    def equip(self, model: Model, received: State) -> None:
        if TEACHER in received.adapters:
            model.gate = _only("student", model)

    def objective(self, model: Model, received: State, memory: Weights, batch: Any) -> Tensor:
        """Cross-entropy + lambda_o T^2 KL(old || new), in one pass of the student and one of the
        teacher."""
        from torch.nn.functional import cross_entropy

        new, answer = model.logits(batch)
        loss = cross_entropy(new, answer)
        if TEACHER not in received.adapters:
            return loss
        with model.instead(_only("teacher", model), received.extras.get(OLD_PROJECTOR)):
            old, _ = model.logits(batch)
        return loss + self.distillation_weight * softened_kl(
            old, new, self.distillation_temperature
        )


def softened_kl(old: Tensor, new: Tensor, softening: float) -> Tensor:
    """T^2 KL(softmax(old / T) || softmax(new / T)), the mean over rows of logits [n, vocabulary].

    T^2 keeps the gradient's size when T grows (Hinton et al. 2015, arXiv 1503.02531).
    """
    from torch.nn.functional import kl_div

    was, now = ((one / softening).log_softmax(dim=-1) for one in (old, new))
    return softening**2 * kl_div(now, was, reduction="batchmean", log_target=True)


def _only(who: str, model: Model) -> Tensor:
    """The gate [1, 2] of one of the two: a model's frozen adapters stand before those that learn."""
    from torch import tensor

    return tensor([[1.0, 0.0] if who == "teacher" else [0.0, 1.0]], device=model.device)
