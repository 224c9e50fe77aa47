"""What a federated optimizer is: FedAvg, and the hooks on server and client in which others differ.

An optimizer combines with any method that does not exclude it: the method says what is sent, trained and
averaged; the optimizer may correct the clients' gradients and decide how far the server follows the
average. Like a method it is a frozen dataclass whose fields are its hyper-parameters, and holds no state
of its own: the server's is `State.optimizer`, a client's is part of that client's memory, and no method
sees either.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from fcit.types import State, Tensor, Turn, Update, Weights, check_fields

AtLeast0 = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]

MOST_LETTERS = 100
"""Of a group's name: it is part of a file's, which has at most 255."""

Groups = dict[str, Weights]
"""What an optimizer stores or sends: tensors of named groups."""


class Local:
    """The optimizer's side of one client's turn: here gradients stay as they are."""

    def correct(self) -> None:
        """Change the parameters' gradients in place; called at every step, before they are clipped."""

    def report(self) -> tuple[Groups, Weights]:
        """After training: what to send beside the update, and the new memory."""
        return {}, {}


@dataclass(frozen=True)
class Optimizer:
    """FedAvg (McMahan et al. 2017, Algorithm 1): plain local training, and the average is the model."""

    def __post_init__(self) -> None:
        """Raise FcitError on a field that is not of its annotated type and range."""
        check_fields(self, "federation.optimizer_options")

    def begin(self, stored: Groups) -> Groups:
        """The server's memory at the start of a stage."""
        return stored

    def send(self, stored: Groups, groups: Sequence[str]) -> Groups:
        """What a client gets that trains these groups (see `groups`)."""
        return {}

    def reports(self, groups: Sequence[str]) -> Sequence[str]:
        """Of the groups that a client trains, those it sends something for beside its update."""
        return ()

    def local(
        self, turn: Turn, trained: Mapping[str, Sequence[Tensor]], received: Groups, memory: Weights
    ) -> Local:
        """The optimizer's side of a client's turn. `trained`: parameters by group, in place; `memory`:
        what it returned in the client's earlier turns."""
        return Local()

    def collect(self, stored: Groups, turns: Sequence[Turn], updates: Sequence[Update]) -> Groups:
        """The server's memory after the clients' optimizers reported; both sequences by client id."""
        return stored

    def move(self, x: Tensor, mean: Tensor, slots: Weights) -> tuple[Tensor, Weights]:
        """One tensor's server step: from `x` and the round's average `mean`, the next value and the
        slots to store for it. `slots` is empty in a tensor's first round."""
        return mean, {}


def groups(trained: Sequence[str], shared: bool) -> tuple[str, str]:
    """Names of what a client trains: its adapters together, and the projector (all clients' or not). They
    do not depend on the order, which changes on a wire: it sorts "10" before "2"."""
    names = "+".join(sorted(trained, key=lambda name: (len(name), name)))
    if len(names) > MOST_LETTERS:  # they become the name of a file
        names = f"{len(trained)}-{hashlib.sha256(names.encode()).hexdigest()[:16]}"
    return f"adapters.{names}", "projector" if shared else f"projector.{names}"


def server_step(
    optimizer: Optimizer,
    before: State,
    after: State,
    turns: Sequence[Turn],
    updates: Sequence[Update],
    trained_extras: Sequence[str],
    averaged: Sequence[State | Update] = (),
) -> State:
    """The state after a round: `after` is `before` with the round's averages in place.

    Every adapter that was `averaged` (by default: that came back), and every extra of these that is named
    in `trained_extras`, makes the optimizer's step; all others keep their values and their momenta.
    """
    stored = dict(optimizer.collect(before.optimizer, turns, updates))
    averaged = averaged or updates
    adapters = {name for value in averaged for name in value.adapters}
    extras = {name for value in averaged for name in value.extras} & set(trained_extras)

    def stepped(kind: str, names: set[str], old: Groups, new: Groups) -> Groups:
        result = dict(new)
        for name in sorted(names & old.keys() & new.keys()):
            group = f"{kind}.{name}"
            result[name], slots = _step(optimizer, old[name], new[name], stored.get(group, {}))
            if slots:
                stored[group] = slots
        return result

    return State(
        stepped("adapters", adapters, before.adapters, after.adapters),
        stepped("extras", extras, before.extras, after.extras),
        stored,
    )


def _step(
    optimizer: Optimizer, before: Weights, after: Weights, stored: Weights
) -> tuple[Weights, Weights]:
    """The step of every tensor of one group; their slots are stored as `slot/tensor`."""
    result: Weights = {}
    slots: Weights = {}
    for key, mean in after.items():
        x = before.get(key)
        if x is None or x.shape != mean.shape or not mean.is_floating_point():
            result[key] = mean
            continue
        split_names = ((name.partition("/"), value) for name, value in stored.items())
        own = {slot: value for (slot, _, tensor), value in split_names if tensor == key}
        result[key], own = optimizer.move(x, mean, own)
        slots |= {f"{slot}/{key}": value for slot, value in own.items()}
    return result, slots


def carry_memory(before: State, after: State) -> State:
    """`after` with the optimizer's memory of `before`, except for what the method opened or replaced: a
    fresh subspace starts with a fresh optimizer."""

    def kept(group: str) -> bool:
        kind, _, name = group.partition(".")
        if kind not in ("adapters", "extras"):  # clients' statistics of an optimizer
            return True
        old, new = (getattr(state, kind).get(name, {}) for state in (before, after))
        return old is new or (old.keys() == new.keys() and all(old[k].equal(new[k]) for k in old))

    stored = {group: slots for group, slots in before.optimizer.items() if kept(group)}
    return replace(after, optimizer=stored)
