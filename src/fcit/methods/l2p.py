"""l2p: Learning to Prompt (Wang et al. 2022, CVPR, arXiv 2112.08654), federated by FedAvg.

The model stays as it is. A pool of prompts with keys is learnt; an input's frozen features choose the
prompts whose keys are most like them, and these stand before the image.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fcit.methods.base import Above0, AtLeast0, AtLeast1, Method
from fcit.methods.model import Model, parameters
from fcit.seeds import torch_stream
from fcit.types import SHARED_PROJECTOR, FcitError, Stage, State, Tensor, Turn, Weights
from fcit.weights import cosine, factors

POOL = "pool"


@dataclass(frozen=True)
class L2p(Method):
    """The paper's query is a frozen classifier's [CLS]; here it is the mean of the image's embeddings by
    the untrained projector. The projector itself learns as with every method; there is no LoRA, so
    `rank`, `scale` and `init_std` have no effect.
    """

    projector: Literal["shared", "frozen"] = "shared"
    """Not "isolated": there are no subspaces."""

    pool: AtLeast1 = 10
    """Number M of prompts in the pool."""

    length: AtLeast1 = 5
    """Tokens L_p of each prompt."""

    top_k: AtLeast1 = 5
    """Number N of prompts that an input gets."""

    start_from: Literal["uniform", "symmetric", "normal"] = "uniform"
    """What prompts and keys are drawn from: `uniform` in [0, `start_range`), as in the authors' code;
    `symmetric`: uniform in [-`start_range`, `start_range`); `normal` with that standard deviation."""

    start_range: Above0 = 0.01
    """Size of prompts and keys at their start; 0.01 in the authors' code."""

    pull_weight: AtLeast0 = 0.5
    """Weight lambda of the loss that pulls the chosen keys to the input's features."""

    trained_extras: ClassVar[tuple[str, ...]] = (SHARED_PROJECTOR, POOL)
    excludes: ClassVar[Mapping[str, str]] = {"ranks": "it has no LoRA"}

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if self.top_k > self.pool:
            raise FcitError(f"method.top_k: {self.top_k} exceeds method.pool ({self.pool})")

    def start(self, blank: Weights, projector: Weights, seed: int = 0) -> State:
        """A pool as wide as the language model (the narrower side of its MLPs)."""
        from torch import empty

        start = super().start(blank, projector, seed)
        width = min(a.shape[1] for a, _ in factors(blank).values())
        noise = torch_stream(seed, "init", "pool")

        def drawn(*shape: int) -> Tensor:
            if self.start_from == "normal":
                return empty(shape).normal_(0, self.start_range, generator=noise)
            low = -self.start_range if self.start_from == "symmetric" else 0.0
            return empty(shape).uniform_(low, self.start_range, generator=noise)

        pool = {
            "prompt": drawn(self.pool, self.length, width),
            "key": drawn(self.pool, width),
        }
        shared = {} if start.projector is None else {SHARED_PROJECTOR: start.projector}
        return State({}, {POOL: pool} | shared)

    def begin(self, state: State, stage: Stage) -> State:
        return state

    def send(self, state: State, turn: Turn) -> State:
        """The whole state: the pool and the shared projector."""
        return state

    def equip(self, model: Model, received: State) -> None:
        """The pool becomes parameters of the model, and its chosen prompts the model's prompts."""
        if POOL not in received.extras:  # the base model, before any training
            return
        pool = parameters(model, received, POOL)

        def prompts(embeds: Tensor) -> Tensor:
            return pick(pool["prompt"], choice(query(embeds), pool["key"], self.top_k))

        model.prompts = prompts

    def penalty(self, model: Model, received: State, memory: Weights, batch: Any) -> Tensor | float:
        """lambda sum over the chosen keys of (1 - cos(query, key)), the mean over samples."""
        keys = model.extra[POOL]["key"]
        return self.pull_weight * distance(query(model.base_embeds(batch)), keys, self.top_k)


def query(embeds: Tensor) -> Tensor:
    """q(x) [batch, width]: the mean of an image's frozen embeddings [batch, tokens, width]."""
    return embeds.float().mean(dim=1)


def choice(queries: Tensor, keys: Tensor, count: int) -> Tensor:
    """The indices [batch, count] of the keys [M, width] nearest by cosine, the nearest first."""
    return cosine(queries, keys).topk(count, dim=-1).indices


def pick(prompts: Tensor, chosen: Tensor) -> Tensor:
    """The chosen prompts of [M, length, width], concatenated: [batch, count * length, width]."""
    return prompts[chosen].flatten(1, 2)


def distance(queries: Tensor, keys: Tensor, count: int) -> Tensor:
    """Sum of 1 - cos over each query's nearest keys, the mean over queries."""
    return (1 - cosine(queries, keys).topk(count, dim=-1).values).sum(dim=-1).mean()
