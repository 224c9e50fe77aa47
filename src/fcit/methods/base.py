"""What a method is: federated fine-tuning, and the places where a method may differ from it.

A method is a frozen dataclass whose fields are its hyper-parameters. It holds no state of its own: the
server's memory is a State, a client's memory is passed in and returned, so resuming is loading files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from fcit.types import (
    PROJECTOR,
    FcitError,
    Identity,
    Parts,
    Setting,
    Stage,
    State,
    Turn,
    Update,
    Weights,
)
from fcit.weights import mean

if TYPE_CHECKING:
    from torch import Tensor


class Model(Protocol):
    """What a method may touch of the model (see `models.lmm.LMM`)."""

    gate: Any
    prompts: Any
    extra: Any

    @property
    def device(self) -> Any:
        """Where the model computes."""
        ...

    @property
    def layers(self) -> list[str]:
        """The paths of the adapted projections, from the language model's first layer to its last."""
        ...

    def logits(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits at a batch's answer tokens, and those tokens."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """Mean cross-entropy over a batch's answer tokens."""
        ...

    def live(self, name: str) -> Weights:
        """An adapter's tensors in place, by the names they have in a State."""
        ...

    def gradient(self, name: str, loss: Tensor) -> Weights:
        """A loss's gradient by the tensors of `live`; the adapter must be one that learns."""
        ...

    def base_embeds(self, batch: Any) -> Tensor:
        """Image embeddings [batch, tokens, width] by the projector as it came: they never learn."""
        ...

    def instead(self, gate: Any, projector: Weights | None = None) -> AbstractContextManager[None]:
        """For a while another model, to learn from: this gate, this projector if one is given, no
        dropout and no gradients."""
        ...


@dataclass(frozen=True)
class Query:
    """A test instruction that asks for adapters: its dataset's name, and its identity feature [d]."""

    dataset: str
    feature: Tensor | None


@dataclass(frozen=True)
class Method:
    """Federated fine-tuning with one LoRA that goes on through all stages (FedAvg; McMahan 2017).

    rank: r of each LoRA block. scale: alpha / r. init_std: of A (B starts at zero). projector: "shared"
    (trained and averaged over all clients), "isolated" (one per subspace) or "frozen".
    """

    rank: int = 8
    scale: float = 2.0
    init_std: float = 0.01
    projector: Literal["shared", "isolated", "frozen"] = "shared"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise FcitError(f"method.rank: {self.rank} must be at least 1")
        for name in ("scale", "init_std"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise FcitError(f"method.{name}: {value} must be above 0")

    once: ClassVar[bool] = False
    """Whether the accuracy matrix has one row, after all training (the reference points)."""

    answers_any: ClassVar[bool] = True
    """Whether it can be asked what belongs to none of the datasets it learnt."""

    centralised: ClassVar[bool] = False
    """Whether nothing is federated, so that no server or client optimizer has a place in it."""

    learnt: ClassVar[tuple[str, ...]] = ("projector",)
    """The extras that are trained weights: server optimizers act on them as on adapters. All others
    (statistics, tokens) stay as `aggregate` leaves them."""

    statistics: ClassVar[bool] = False
    """Whether clients send, beside what they trained, what they measured on their data."""

    opens: ClassVar[Literal["all", "tokens", "dataset", "layers", "inside"]] = "all"
    """What decides how much adapters give, for export: nothing (all give 1), identity tokens by `gate`
    and `temperature`, the dataset, gates that differ by layer, or the model itself as it runs. Who
    overrides `route`, `equip` or `activate` says this anew, or is not exported."""

    @property
    def identity(self) -> Literal["text", "image", "both"] | None:
        """What identity tokens are made of; None where the method needs no tokens."""
        return None

    def reshape(self, setting: Setting) -> Setting:
        """The setting this method trains on (reference points train on another than the rest)."""
        return setting

    def start(self, blank: Weights, projector: Weights, seed: int = 0) -> State:
        """The server's state before the first round. `blank` is a fresh LoRA block; what else is
        drawn comes from streams of the run's seed."""
        own = with_projector(blank, projector) if self.projector == "isolated" else blank
        shared = {"projector": projector} if self.projector == "shared" else {}
        return State({}, {"blank": own} | shared)

    def begin(self, state: State, stage: Stage) -> State:
        """A new stage arrives."""
        return state if state.adapters else self.open(state, "0")

    def open(self, state: State, name: str) -> State:
        """The state with one more, fresh, adapter."""
        return replace(state, adapters=state.adapters | {name: state.extras["blank"]})

    def unknown(self, state: State, turns: Sequence[Turn]) -> list[Turn]:
        """Those of a round's turns whose identity tokens the server still has to ask for."""
        return []

    def organise(self, state: State, identities: Sequence[Identity]) -> State:
        """Take in the identity tokens of clients not met before. Whoever is `unknown` still has no place
        in this state, and is left out of the round."""
        return state

    def adapter(self, state: State, turn: Turn) -> str:
        """The name of the adapter this client trains in this turn."""
        return "0"

    def send(self, state: State, turn: Turn) -> State:
        """What this client may see: the adapter it trains, and the shared projector."""
        name = self.adapter(state, turn)
        shared = {"projector"} & state.extras.keys()
        return State({name: state.adapters[name]}, {key: state.extras[key] for key in shared})

    def trains(self, received: State) -> list[str]:
        """Which of the received adapters learn; the others stay frozen."""
        return list(received.adapters)

    def expects(self, received: State) -> State:
        """What a client that got `received` is to send back, as tensors of the right names, shapes and
        types; the server takes nothing else. The base: adapters, and the extras in `learnt`."""
        return State(
            {name: received.adapters[name] for name in self.trains(received)},
            {key: received.extras[key] for key in self.learnt if key in received.extras},
        )

    def equip(self, model: Model, received: State) -> None:
        """Prepare a model for what was received, to train or to answer: extra modules, prompts."""

    def objective(self, model: Model, received: State, memory: Weights, batch: Any) -> Tensor:
        """The local loss of a batch; most methods need only add a `penalty` to the cross-entropy."""
        return model.loss(batch) + self.penalty(model, received, memory, batch)

    def penalty(self, model: Model, received: State, memory: Weights, batch: Any) -> Tensor | float:
        """What is added to the local loss of a batch."""
        return 0.0

    def report(
        self, model: Model, received: State, memory: Weights, batches: Iterable[Any]
    ) -> tuple[dict[str, Weights], Weights]:
        """After training: named extras to send beside the weights, and the client's new memory."""
        return {}, memory

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """The round's updates (by client id) averaged by sample count, name by name (FedAvg)."""
        adapters = _averages([(update.adapters, update.samples) for update in updates])
        extras = _averages([(update.extras, update.samples) for update in updates])
        return State(state.adapters | adapters, state.extras | extras)

    def end(self, state: State, stage: Stage) -> State:
        """A stage has ended."""
        return state

    def activate(self, model: Model, shares: Tensor) -> None:
        """Open the model's adapters for a batch that is to be answered: `shares` [batch, K] are the
        routes of its samples. A method whose gates differ from layer to layer sets them here."""
        model.gate = shares

    def similarities(self, state: State, query: Query) -> Mapping[str, float]:
        """Cosine of a test instruction's identity feature to each subspace's token, by subspace name:
        what `route` is computed from. Empty for methods that do not route by identity tokens."""
        return {}

    def route(self, state: State, query: Query) -> Mapping[str, float]:
        """How much each adapter gives for a test instruction (all that are opened, by name); nothing
        where the model decides by itself, with gates that `equip` has set."""
        return {name: 1.0 for name in state.adapters}


def with_projector(block: Weights, projector: Weights) -> Weights:
    """An adapter with a projector of its own."""
    return block | {PROJECTOR + name: value for name, value in projector.items()}


def _averages(sent: Sequence[tuple[Parts, int]]) -> dict[str, Weights]:
    """For every name, the mean over those who sent it, weighted by their samples."""
    result: dict[str, Weights] = {}
    for name in dict.fromkeys(name for parts, _ in sent for name in parts):
        who = [(parts, samples) for parts, samples in sent if name in parts]
        counts = [samples for _, samples in who]
        result[name] = mean((parts[name] for parts, _ in who), counts)
    return result
