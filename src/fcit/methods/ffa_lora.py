"""ffa_lora: FFA-LoRA (Sun et al. 2024, ICLR, Improving LoRA in Privacy-preserving Federated Learning,
arXiv 2403.12313), federated by FedAvg.

All clients have the same random A, which never changes; B alone is trained, sent and averaged. So the
average is exact, mean(B_k) A = mean(B_k A), and a private mean's noise on B meets none on A.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from fcit.methods.base import Method
from fcit.methods.model import Model
from fcit.seeds import torch_stream
from fcit.types import FcitError, State, Tensor, Turn, Weights
from fcit.weights import DOWN, ending, redrawn

DRAWN = "drawn"


@dataclass(frozen=True)
class FfaLora(Method):
    """A never travels: every client draws it from the run's seed, and compares it with the server's by a
    small check. As A stays as small as `init_std` makes it, B needs a larger learning rate than LoRA's.
    """

    projector: Literal["shared", "isolated", "frozen"] = "shared"
    """As in finetune. (With LoRA, the projector's A would learn.)"""

    learns_down: ClassVar[bool] = False

    excludes: ClassVar[Mapping[str, str]] = {
        "ranks": "clients draw all rows of A, and send nothing of it"
    }

    def start(self, blank: Weights, projector: Weights, seed: int = 0) -> State:
        from torch import tensor

        state, drawn = super().start(blank, projector, seed), self._draw(blank, seed)
        check = {"seed": tensor(seed), "check": _check(drawn, self.init_std)}
        own = {"blank": state.extras["blank"] | ending(drawn, DOWN), DRAWN: check}
        return replace(state, extras=state.extras | own)

    def send(self, state: State, turn: Turn) -> State:
        """B, and the seed of A."""
        sent = super().send(state, turn)
        adapters = {name: ending(block, DOWN, negate=True) for name, block in sent.adapters.items()}
        return State(adapters, sent.extras | {DRAWN: state.extras[DRAWN]})

    def complete(self, model: Model, received: State, memory: Weights) -> State:
        """With A, drawn again."""
        drawn = received.extras[DRAWN]
        downs = ending(self._draw(model.blank(self.rank), int(drawn["seed"])), DOWN)
        if abs(int(_check(downs, self.init_std) - drawn["check"])) > 1:
            raise FcitError(
                "method ffa_lora: this machine draws another A from the run's seed than the server; "
                "both need the same version of torch"
            )
        adapters = {name: block | downs for name, block in received.adapters.items()}
        return replace(received, adapters=adapters)

    def _draw(self, block: Weights, seed: int) -> Weights:
        return redrawn(block, self.init_std, torch_stream(seed, "init", "A"))


def _check(block: Weights, std: float) -> Tensor:
    """A whole number that differs from draw to draw, and by at most 1 between machines that round
    differently: the mean of one layer's A in millionths of its standard deviation."""
    first = block[min(ending(block, DOWN))]
    return (first.double().mean() / std * 1e6).round().long()
