"""Ranks that differ by client: a client trains the first rows of A and columns of B, the others stay.

Every client gets its whole adapter, so all start from the same model. The server fills in what a client
did not train, and averages the clients' whole models: B_k A_k of rank r, nothing truncated or padded with
zeros (as it is where each client has the first rows alone: Cho et al. 2024, Heterogeneous LoRA for
Federated Fine-tuning of On-Device Foundation Models, arXiv 2401.06432).
"""

from collections.abc import Sequence
from dataclasses import replace

from fcit.types import FcitError, State, Update, Weights
from fcit.weights import DOWN, REST, UP


def narrow(sent: State, trained: Sequence[str], rank: int) -> State:
    """What a client of this rank gets: the rows and columns that it trains as its adapter, the others
    as the extra "rest". Unchanged where it trains all of them. Raises FcitError where it trains several
    adapters."""
    if len(trained) != 1:
        raise FcitError(
            "federation.ranks: the method's clients train several adapters, or none; it needs one"
        )
    (name,) = trained
    own: Weights = {}
    rest: Weights = {}
    for key, value in sent.adapters[name].items():
        first = value
        if (side := _side(key)) is not None and value.shape[side] > rank:
            first, other = value.tensor_split([rank], dim=side)
            rest[key] = other.contiguous()
        own[key] = first.contiguous()
    if not rest:
        return sent
    return replace(sent, adapters=sent.adapters | {name: own}, extras=sent.extras | {REST: rest})


def widen(update: Update, received: State) -> Update:
    """An update of whole adapters: with the "rest" of what its client received."""
    from torch import cat

    rest = received.extras.get(REST)
    if rest is None:
        return update
    adapters = {
        name: {
            key: cat([value, rest[key]], dim=_side(key) or 0) if key in rest else value
            for key, value in block.items()
        }
        for name, block in update.adapters.items()
    }
    return replace(update, adapters=adapters)


def _side(key: str) -> int | None:
    """The dimension of a tensor that counts the rank; None for one without."""
    return 0 if key.endswith(DOWN) else 1 if key.endswith(UP) else None
