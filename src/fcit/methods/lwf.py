"""lwf: Learning without Forgetting (Li & Hoiem 2016, arXiv 1606.09282), federated by FedAvg.

What the model said before a stage, to the stage's own inputs, is a second target of the stage: no old
data is kept, only the old adapter.
"""

from dataclasses import dataclass, replace
from typing import Any

from fcit.methods.base import Above0, AtLeast0, Method
from fcit.methods.model import Model
from fcit.types import Stage, State, Tensor, Turn, Weights

TEACHER = "teacher"
OLD_PROJECTOR = "teacher-projector"


@dataclass(frozen=True)
class Lwf(Method):
    """The old answers are distributions over the vocabulary at the answer's tokens, each computed with
    the true tokens before it (teacher forcing); the paper's are those of a classifier's old heads."""

    distillation_weight: AtLeast0 = 1.0
    """Weight lambda_o of the distillation loss, against the old model's answers."""

    distillation_temperature: Above0 = 2.0
    """Temperature T of the two softmaxes that the distillation compares."""

    def begin(self, state: State, stage: Stage) -> State:
        """From the second stage on, the model as it now stands is the teacher."""
        if not state.adapters:
            return super().begin(state, stage)
        teacher = {TEACHER: state.adapters["0"]}
        if state.projector is not None:
            teacher[OLD_PROJECTOR] = state.projector
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

    def objective(self, model: Model, received: State, memory: Weights, batch: Any) -> Tensor:
        """Cross-entropy + lambda_o T^2 KL(old || new), in one pass of the student and one of the
        teacher."""
        from torch.nn.functional import cross_entropy

        if TEACHER not in received.adapters:
            return model.loss(batch)
        model.gate = _only("student", model)
        new, answer = model.logits(batch)
        loss = cross_entropy(new, answer)
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

    was, now = ((logits / softening).log_softmax(dim=-1) for logits in (old, new))
    return softening**2 * kl_div(now, was, reduction="batchmean", log_target=True)


def _only(who: str, model: Model) -> Tensor:
    """The gate [1, 2] of one of the two: a model's frozen adapters stand before those that learn."""
    from torch import tensor

    return tensor([[1.0, 0.0] if who == "teacher" else [0.0, 1.0]], device=model.device)
