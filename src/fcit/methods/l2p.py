"""l2p: Learning to Prompt (Wang et al. 2022, CVPR, arXiv 2112.08654), federated by FedAvg.

The model stays as it is. A pool of prompts with keys is learnt; an input's frozen features choose the
prompts whose keys are most like them, and these stand before the image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fcit.methods.base import Method, Model
from fcit.seeds import torch_stream
from fcit.types import FcitError, Stage, State, Turn, Weights
from fcit.weights import cosine, factors

if TYPE_CHECKING:
    from torch import Tensor

POOL = "pool"
START = 0.02
"""Standard deviation of prompts and keys at their start, the usual one of embeddings."""


@dataclass(frozen=True)
class L2p(Method):
    """pool: M, how many prompts there are. length: L_p, tokens of each. top_k: N, how many an input
    gets. pull_weight: lambda, how strongly the chosen keys are drawn to the input's features.

    The paper's query is a frozen classifier's [CLS]; here it is the mean of the image's embeddings by
    the projector as it came. The projector itself learns as with every method; there is no LoRA, so
    `rank`, `scale` and `init_std` say nothing.
    """

    pool: int = 10
    length: int = 5
    top_k: int = 5
    pull_weight: float = 0.5

    learnt: ClassVar[tuple[str, ...]] = ("projector", POOL)

    opens: ClassVar = "inside"

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        for name in ("pool", "length", "top_k"):
            if getattr(self, name) < 1:
                raise FcitError(f"method.{name}: {getattr(self, name)} must be at least 1")
        if self.top_k > self.pool:
            raise FcitError(f"method.top_k: {self.top_k} exceeds method.pool ({self.pool})")
        if not 0 <= self.pull_weight < float("inf"):
            raise FcitError(f"method.pull_weight: {self.pull_weight} must be 0 or more")
        if self.projector == "isolated":
            raise FcitError("method.projector: l2p has no subspaces to isolate it in; use shared")

    def start(self, blank: Weights, projector: Weights, seed: int = 0) -> State:
        """A pool as wide as the language model (the narrower side of its MLPs)."""
        from torch import empty

        extras = super().start(blank, projector, seed).extras
        width = min(a.shape[1] for a, _ in factors(blank).values())
        noise = torch_stream(seed, "init", "pool")
        pool = {
            "prompt": empty(self.pool, self.length, width).normal_(0, START, generator=noise),
            "key": empty(self.pool, width).normal_(0, START, generator=noise),
        }
        shared = {key: extras[key] for key in {"projector"} & extras.keys()}
        return State({}, {POOL: pool} | shared)

    def begin(self, state: State, stage: Stage) -> State:
        return state

    def send(self, state: State, turn: Turn) -> State:
        """The pool and the shared projector: all that is held."""
        return state

    def equip(self, model: Model, received: State) -> None:
        """The pool becomes parameters of the model, and what it chooses the model's prompts."""
        from torch.nn import Parameter, ParameterDict

        if POOL not in received.extras:  # the base model, before any training
            return
        held = {
            name: Parameter(value.to(model.device, copy=True))
            for name, value in sorted(received.extras[POOL].items())
        }

        def prompts(embeds: Tensor) -> Tensor:
            return pick(held["prompt"], choice(query(embeds), held["key"], self.top_k))

        model.extra[POOL], model.prompts = ParameterDict(held), prompts

    def penalty(self, model: Model, received: State, memory: Weights, batch: Any) -> Tensor | float:
        """lambda sum over the chosen keys of (1 - cos(query, key)), the mean over samples."""
        keys = model.extra[POOL]["key"]
        return self.pull_weight * distance(query(model.base_embeds(batch)), keys, self.top_k)

    def report(
        self, model: Model, received: State, memory: Weights, batches: Iterable[Any]
    ) -> tuple[dict[str, Weights], Weights]:
        learnt = model.extra[POOL]
        held = {name: learnt[name].detach().cpu().clone() for name in received.extras[POOL]}
        return {POOL: held}, memory


def query(embeds: Tensor) -> Tensor:
    """q(x) [batch, width]: the mean of an image's frozen embeddings [batch, tokens, width]."""
    return embeds.float().mean(dim=1)


def choice(queries: Tensor, keys: Tensor, count: int) -> Tensor:
    """The indices [batch, count] of the keys [M, width] nearest by cosine, the nearest first."""
    return cosine(queries, keys).topk(count, dim=-1).indices


def pick(prompts: Tensor, chosen: Tensor) -> Tensor:
    """The chosen prompts of [M, length, width] one after another: [batch, count * length, width]."""
    return prompts[chosen].flatten(1, 2)


def distance(queries: Tensor, keys: Tensor, count: int) -> Tensor:
    """Sum of 1 - cos over each query's nearest keys, the mean over queries."""
    return (1 - cosine(queries, keys).topk(count, dim=-1).values).sum(dim=-1).mean()
