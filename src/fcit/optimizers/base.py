"""What a federated optimizer is: FedAvg, and the places on server and client where others differ.

An optimizer combines with any method: the method says what is sent, trained and averaged; the optimizer
may correct the clients' gradients and decide how far the server follows the average. Like a method it
is a frozen dataclass whose fields are its hyper-parameters and holds no state of its own: the server's
is `State.optimizer`, a client's is part of that client's memory, and no method sees either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from fcit.types import State, Turn, Update, Weights, check_fields

if TYPE_CHECKING:
    from torch import Tensor

Slots = dict[str, Weights]
"""What an optimizer keeps or sends: tensors by slot, in named groups."""

OWN = "optimizer/"
"""Prefix of what an optimizer keeps in a client's memory, beside what the method keeps there."""


class Local(Protocol):
    """The optimizer's side of one client's turn."""

    def correct(self) -> None:
        """Change the parameters' gradients in place, before they are clipped, at every step."""
        ...

    def report(self) -> tuple[Slots, Weights]:
        """After training: what to send beside the update, and what to keep (names start with OWN)."""
        ...


class Plain:
    """A turn in which gradients stay as they are."""

    def correct(self) -> None:
        """Nothing to correct."""

    def report(self) -> tuple[Slots, Weights]:
        """Nothing to send or to keep."""
        return {}, {}


@dataclass(frozen=True)
class Optimizer:
    """FedAvg (McMahan et al. 2017, Algorithm 1): plain local training, and the average is the model."""

    def __post_init__(self) -> None:
        """Raise FcitError on a field that is not of its annotated type and range."""
        check_fields(self, "federation.optimizer_options")

    def begin(self, kept: Slots) -> Slots:
        """What the server still remembers as a new stage arrives."""
        return kept

    def send(self, kept: Slots, groups: Sequence[str]) -> Slots:
        """What a client gets that trains these groups (see `groups`)."""
        return {}

    def reports(self, groups: Sequence[str]) -> Sequence[str]:
        """Of the groups that a client trains, those it sends something for beside its update."""
        return ()

    def local(
        self, turn: Turn, trained: Mapping[str, Sequence[Tensor]], received: Slots, memory: Weights
    ) -> Local:
        """The optimizer's side of a client's turn. `trained`: parameters by group, in place;
        `memory`: what the client kept of earlier turns under OWN."""
        return Plain()

    def collect(self, kept: Slots, turns: Sequence[Turn], updates: Sequence[Update]) -> Slots:
        """Take in what the clients' optimizers sent; both sequences by client id."""
        return kept

    def move(self, x: Tensor, mean: Tensor, kept: Weights) -> tuple[Tensor, Weights]:
        """One tensor's server step: from `x` and the round's average `mean`, the next value, and what
        to keep for it. `kept` is empty in a tensor's first round."""
        return mean, {}


def groups(trained: Sequence[str], shared: bool) -> tuple[str, str]:
    """Names of what a client trains: its adapters together, and the projector (all clients' or not)."""
    names = "+".join(trained)
    return f"adapters.{names}", "projector" if shared else f"projector.{names}"


def server_step(
    optimizer: Optimizer,
    before: State,
    after: State,
    turns: Sequence[Turn],
    updates: Sequence[Update],
    trained_extras: Sequence[str],
) -> State:
    """The state after a round: `after` is `before` with the round's averages in place.

    Every adapter that came back, and every extra of these that is named in `trained_extras`, makes the
    optimizer's step; whatever nobody trained in this round keeps its values and its momenta.
    """
    kept = optimizer.collect(before.optimizer, turns, updates)
    came = {
        "adapters": {name for update in updates for name in update.adapters},
        "extras": {name for update in updates for name in update.extras} & set(trained_extras),
    }
    parts = {"adapters": dict(after.adapters), "extras": dict(after.extras)}
    for kind, stood in (("adapters", before.adapters), ("extras", before.extras)):
        for name in sorted(came[kind] & stood.keys() & parts[kind].keys()):
            own = kept.get(f"{kind}.{name}", {})
            parts[kind][name], own = _step(optimizer, stood[name], parts[kind][name], own)
            if own:
                kept = kept | {f"{kind}.{name}": own}
    return State(parts["adapters"], parts["extras"], kept)


def _step(
    optimizer: Optimizer, before: Weights, after: Weights, kept: Weights
) -> tuple[Weights, Weights]:
    """The optimizer's step on every tensor of one group; its slots are kept as `slot/tensor`."""
    result: Weights = {}
    slots: Weights = {}
    for key, mean in after.items():
        x = before.get(key)
        if x is None or x.shape != mean.shape or not mean.is_floating_point():
            result[key] = mean
            continue
        own = {
            path.partition("/")[0]: value
            for path, value in kept.items()
            if path.partition("/")[2] == key
        }
        result[key], own = optimizer.move(x, mean, own)
        slots |= {f"{slot}/{key}": value for slot, value in own.items()}
    return result, slots


def carry_memory(before: State, after: State) -> State:
    """`after` with the optimizer's memory of `before`, save for what a method opened anew or replaced:
    a fresh subspace starts with a fresh optimizer."""
    kept: Slots = {}
    for group, slots in before.optimizer.items():
        kind, _, name = group.partition(".")
        if kind in ("adapters", "extras"):
            old, new = (getattr(state, kind).get(name, {}) for state in (before, after))
            if not _same(old, new):
                continue
        kept[group] = slots
    return replace(after, optimizer=kept)


def _same(a: Weights, b: Weights) -> bool:
    return a is b or (a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a))


def split(memory: Weights) -> tuple[Weights, Weights]:
    """A client's memory in two: the method's part, and the optimizer's."""
    own = {key: value for key, value in memory.items() if key.startswith(OWN)}
    return {key: value for key, value in memory.items() if key not in own}, own
