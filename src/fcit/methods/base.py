"""What a method is: federated fine-tuning, and the hooks in which a method may differ from it.

A method is a frozen dataclass whose fields are its hyper-parameters. It holds no state of its own: the
server's memory is a State, a client's memory is passed in and returned, so resuming is loading files.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fcit.methods.checks import check
from fcit.methods.gating import Gating, Query
from fcit.methods.model import Model, plain
from fcit.types import (
    PROJECTOR,
    SHARED_PROJECTOR,
    FcitError,
    Identity,
    Parts,
    Sample,
    Setting,
    Stage,
    State,
    Tensor,
    Turn,
    Update,
    Weights,
)
from fcit.weights import low_rank, mean, summed

AtLeast0 = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AtLeast1 = Annotated[int, Field(ge=1, le=4096)]
Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]

TokenKind = Literal["text", "image", "both"]
"""What identity tokens are made of: the instruction, the image, or both one after the other."""


@dataclass(frozen=True)
class Method:
    """Federated fine-tuning with one LoRA that goes on through all stages (FedAvg; McMahan 2017)."""

    rank: AtLeast1 = 8
    """Rank r of each LoRA block."""
    scale: Above0 = 2.0
    """LoRA's alpha / r."""
    init_std: Above0 = 0.01
    """Standard deviation of LoRA's A at the start; B starts at zero."""
    projector: Literal["shared", "isolated", "lora", "frozen"] = "shared"
    """`shared`: trained, and averaged over all clients. `isolated`: one per adapter. `lora`: LoRA of the
    projector's matrices in every adapter, with the adapter's rank and learning rate (far fewer bytes).
    `frozen`: not trained. fedex_lora, fedprotip, hide, l2p, moelora, olora: `shared` or `frozen` only."""

    def __post_init__(self) -> None:
        """Raise FcitError as `check` does. A `__post_init__` of a method's own calls this one first."""
        check(self, Method, TokenKind)

    # -- facts about the method, for other parts of fcit -------------------------------------------

    @property
    def name(self) -> str:
        """Its name in a recipe: that of its file."""
        return type(self).__module__.rpartition(".")[2]

    single_row: ClassVar[bool] = False
    """Whether the accuracy matrix has one row, after all training (the reference points)."""
    reference: ClassVar[bool] = False
    """Whether it only gives a reference point, and is no federated continual method."""
    federated: ClassVar[bool] = True
    """Whether clients train it. Otherwise one machine holds all data, and no federated optimizer,
    privacy or Flower applies."""

    trained_extras: ClassVar[tuple[str, ...]] = (SHARED_PROJECTOR,)
    """The extras that are trained weights: server optimizers act on them as on adapters. All others
    (statistics, tokens) stay as `aggregate` leaves them."""

    replays: ClassVar[bool] = False
    """Whether clients train on old data again (`rehearsed`), which breaks the setting's rule."""

    learns_down: ClassVar[bool] = True
    """Whether LoRA's A learns, and not B alone."""

    excludes: ClassVar[Mapping[str, str]] = {}
    """What is incompatible with it, and why: values of `federation.average`, `robust` and
    `optimizer`; "ranks" and "privacy"."""

    @property
    def sends_statistics(self) -> bool:
        """Whether clients send, besides what they trained and means of identity features, what they
        measured on their data."""
        return False

    @property
    def subspace_limit(self) -> int:
        """The most subspaces that exist at the same time, for `fcit plan`; 0: no limit."""
        return 0

    @property
    def answers_general(self) -> bool:
        """Whether it can be asked questions of none of its datasets, such as the general questions."""
        return self.gating.gate != "choose"

    # -- server: the setting, the state, stages ----------------------------------------------------

    def reshape(self, setting: Setting) -> Setting:
        """The setting this method trains on; reference points train on another one."""
        return setting

    def start(self, blank: Weights, projector: Weights, seed: int = 0) -> State:
        """The server's state before the first round. `blank` is a fresh LoRA block; what else is
        drawn comes from streams of the run's seed."""
        own = blank
        if self.projector == "isolated":
            own = with_projector(blank, projector)
        elif self.projector == "lora":
            from fcit.seeds import torch_stream

            noise = torch_stream(seed, "projector")
            own = with_projector(blank, low_rank(projector, self.rank, self.init_std, noise))
        shared = {SHARED_PROJECTOR: projector} if self.projector == "shared" else {}
        return State({}, {"blank": own} | shared)

    def begin(self, state: State, stage: Stage) -> State:
        """A new stage arrives."""
        return state if state.adapters else self.open(state, "0")

    def open(self, state: State, name: str) -> State:
        """The state with one more, fresh, adapter."""
        return replace(state, adapters=state.adapters | {name: state.extras["blank"]})

    def end(self, state: State, stage: Stage) -> State:
        """A stage has ended. Asked twice at times: the same state must give the same result."""
        return state

    def heirs(self, state: State) -> Mapping[str, str]:
        """For every adapter that has merged into another, by name: the one that took it in. Asked after
        every round, and after `end`; reports count what it learnt as that one's."""
        return {}

    # -- server: identity tokens -------------------------------------------------------------------

    @property
    def identity(self) -> TokenKind | None:
        """What identity tokens and test features are made of; None where the method needs none."""
        return None

    def make_token(self, features: Tensor) -> Tensor:
        """A client's identity token [w], of its samples' features [n, d]: their mean."""
        return features.mean(dim=0)

    def token_width(self, features: int) -> int:
        """How many numbers w a token has, where features have so many."""
        return features

    def token_mean(self, tokens: Tensor) -> Tensor:
        """The mean of the features in tokens [..., w]: [..., d]."""
        return tokens

    def token_fault(self, token: Tensor) -> str:
        """What is wrong with a client's token [w] of finite numbers, in words; "": nothing."""
        return ""

    def to_identify(self, state: State, turns: Sequence[Turn]) -> list[Turn]:
        """Those of a round's turns whose clients are asked for an identity token."""
        return list(turns) if self.identity else []

    @property
    def asked_per(self) -> Literal["task", "stage", "round"]:
        """How often `to_identify` may name a client; privacy counts its tokens by this."""
        return "round"

    def tokens(self, state: State) -> Tensor | None:
        """The subspaces' identity tokens [K, d] that `similarities` compares with, or None."""
        return None

    def organise(self, state: State, identities: Sequence[Identity]) -> State:
        """Take in the tokens that were asked for, by client id."""
        return state

    def reason_to_skip(self, state: State, turn: Turn) -> str:
        """Why a client gets no work in this round though it answered, as a sentence for the log; "":
        it takes part. Asked after `organise`."""
        return ""

    # -- server: a client's turn, and what comes back ----------------------------------------------

    def adapter(self, state: State, turn: Turn) -> str:
        """The name of the adapter this client trains in this turn."""
        return "0"

    def send(self, state: State, turn: Turn) -> State:
        """What this client may see: the adapter it trains, and `trained_extras`."""
        name = self.adapter(state, turn)
        if name not in state.adapters:
            raise FcitError(
                f"{self.name}: adapter gives client {turn.client} {name!r}, and the state has "
                f"{', '.join(sorted(state.adapters)) or 'none'}; open it in begin or organise"
            )
        extras = {key: state.extras[key] for key in self.trained_extras if key in state.extras}
        return State({name: state.adapters[name]}, extras)

    def trains(self, received: State) -> list[str]:
        """Which of the received adapters learn; the others stay frozen."""
        return list(received.adapters)

    def expects(self, received: State) -> State:
        """What a client that got `received` must send back, as tensors of the right names, shapes and
        types; the server accepts nothing else. Here: the adapters that learn and `trained_extras`."""
        return State(
            {name: received.adapters[name] for name in self.trains(received)},
            {key: received.extras[key] for key in self.trained_extras if key in received.extras},
        )

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """The round's updates (by client id) averaged by sample count, name by name (FedAvg)."""
        adapters = _averages([(update.adapters, update.samples) for update in updates])
        extras = _averages([(update.extras, update.samples) for update in updates])
        whole = {name: state.adapters.get(name, {}) | block for name, block in adapters.items()}
        return State(state.adapters | whole, state.extras | extras)

    # -- client ------------------------------------------------------------------------------------

    def rehearsed(self, turn: Turn, old: Sequence[Sample], seed: int) -> list[Sample]:
        """Which samples a client trains on as well, of those of its tasks of earlier stages; asked
        where the method `replays`."""
        return []

    def complete(self, model: Model, received: State, memory: Weights) -> State:
        """What was received, with what it lacks of its adapters and the client has. Asked before the
        model takes it, to train; `expects` is of what was received, and of adapters no more is sent."""
        return received

    def equip(self, model: Model, received: State) -> None:
        """Prepare a model for what was received, to train or to answer: extra modules, prompts, gates.
        A method that overrides this cannot be exported."""

    def objective(self, model: Model, received: State, memory: Weights, batch: Any) -> Tensor:
        """The local loss of a batch; most methods need only add a `penalty` to the cross-entropy."""
        return summed([model.loss(batch), self.penalty(model, received, memory, batch)])

    def penalty(self, model: Model, received: State, memory: Weights, batch: Any) -> Tensor | float:
        """What is added to the local loss of a batch."""
        return 0.0

    def report(
        self, model: Model, received: State, memory: Weights, batches: Iterable[Any]
    ) -> tuple[dict[str, Weights], Weights]:
        """After training: named extras to send beside the weights, and the client's new memory. Here:
        the extras that `equip` made parameters of (the shared projector is always sent)."""
        return {
            name: {key: model.extra[name][plain(key)].detach().cpu().clone() for key in weights}
            for name, weights in received.extras.items()
            if name in model.extra
        }, memory

    # -- answers -----------------------------------------------------------------------------------

    @property
    def gating(self) -> Gating:
        """The gating function of `route`; here every adapter gives 1."""
        return Gating()

    def similarities(self, state: State, query: Query) -> Mapping[str, float]:
        """Cosine of a test instruction's identity feature to each subspace's token, or another score by
        which it is routed, by subspace name.
        Empty for methods that do not route by identity tokens."""
        return {}

    def route(self, state: State, query: Query) -> Mapping[str, float]:
        """How much each adapter gives for a test instruction, by name; {} where the gates that `equip`
        set decide. Override `gating` where it can say so: another route cannot be exported."""
        similarities = self.similarities(state, query)
        return self.gating.shares(state.adapters, similarities, query.dataset)

    def activate(self, model: Model, shares: Tensor) -> None:
        """Open the model's adapters for a batch of questions: `shares` [batch, K] are their routes. A
        method that overrides this, for gates that differ by layer, has no `fcit export --all`."""
        model.gate = shares


def with_projector(block: Weights, projector: Weights) -> Weights:
    """An adapter with a projector of its own."""
    return block | {PROJECTOR + name: value for name, value in projector.items()}


def newest(state: State) -> str:
    """The adapter opened last, where their names are numbers."""
    return max(state.adapters, key=int)


def _averages(sent: Sequence[tuple[Parts, int]]) -> dict[str, Weights]:
    """For every name, the mean over those who sent it, weighted by their samples."""
    result: dict[str, Weights] = {}
    for name in dict.fromkeys(name for parts, _ in sent for name in parts):
        senders = [(parts, samples) for parts, samples in sent if name in parts]
        counts = [samples for _, samples in senders]
        result[name] = mean((parts[name] for parts, _ in senders), counts)
    return result
