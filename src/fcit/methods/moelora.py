"""moelora: a mixture of LoRA experts as in CoIN (Chen et al. 2024, arXiv 2403.08350), federated by
FedAvg. The name and the idea are older (Liu et al. 2023, When MOE Meets LLMs, arXiv 2310.18339).

In every adapted layer a linear router shares each token among K experts; all of them answer (a dense
sum weighted by the router's softmax), and one set of experts and routers goes on through all stages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from fcit.methods.base import AtLeast1, Method, Query
from fcit.methods.model import Model, parameters
from fcit.seeds import torch_stream
from fcit.types import SHARED_PROJECTOR, Stage, State, Tensor, Turn, Weights
from fcit.weights import factors, redrawn

ROUTER = "router"


@dataclass(frozen=True)
class Moelora(Method):
    """Routers start at zero: every expert gives 1 / K at first. As in CoIN a router sees its layer's
    input; Liu et al. route by a task's identity, which is unknown when a question comes.

    K experts of rank r have the LoRA weights of one LoRA of rank K r, and the routers come on top. For
    the weights of another method's rank 8, set `rank = 1` with 8 experts: CoIN's code, too, divides one
    rank among its experts.
    """

    projector: Literal["shared", "frozen"] = "shared"
    """Not "isolated": the experts have one projector."""

    experts: AtLeast1 = 8
    """Number K of experts per layer, each a LoRA of rank `rank`. Each A is drawn separately: equal
    experts would stay equal."""

    trained_extras: ClassVar[tuple[str, ...]] = (SHARED_PROJECTOR, ROUTER)
    excludes: ClassVar[Mapping[str, str]] = {"ranks": "every client trains all experts"}

    def start(self, blank: Weights, projector: Weights, seed: int = 0) -> State:
        extras = super().start(blank, projector, seed).extras
        experts = {
            str(k): redrawn(extras["blank"], self.init_std, torch_stream(seed, "init", "expert", k))
            for k in range(self.experts)
        }
        router = {
            path: a.new_zeros(self.experts, a.shape[1])
            for path, (a, _) in sorted(factors(blank).items())
        }
        return State(experts, extras | {ROUTER: router})

    def begin(self, state: State, stage: Stage) -> State:
        return state

    def send(self, state: State, turn: Turn) -> State:
        """All experts, the routers, and the shared projector."""
        return replace(super().send(state, turn), adapters=dict(state.adapters))

    def equip(self, model: Model, received: State) -> None:
        """The routers become parameters of the model, and their softmax its gate."""
        if ROUTER not in received.extras:  # the base model, before any training
            return
        router = parameters(model, received, ROUTER)

        def gate(layer: str, x: Tensor) -> Tensor:
            return shares(x, router[layer])

        model.gate = gate

    def route(self, state: State, query: Query) -> Mapping[str, float]:
        """Nothing: the routers decide in the model, token by token."""
        return {}


def shares(x: Tensor, router: Tensor) -> Tensor:
    """softmax(W x): how much each expert gives, [batch, seq, K] for inputs [batch, seq, in] and a
    router [K, in]."""
    from torch.nn.functional import linear

    return linear(x.to(router.dtype), router.to(x.device)).softmax(dim=-1)
