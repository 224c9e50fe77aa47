"""disco: DISCO (Guo et al. 2025, Federated Continual Instruction Tuning, arXiv 2503.12897, section 4).

Dynamic knowledge organisation (DKO) gives every client, by its identity token, the subspace of clients
who learn the same; subspace selective activation (SSA) activates, per test instruction, the subspaces
whose identity tokens are like it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from fcit.methods.base import Above0, Gating, TokenKind
from fcit.methods.tokens import TokenRouted
from fcit.types import MOST, FcitError, Identity, Stage, State, Tensor, Turn, Update

OPENING = "opening"
"""In the state during a stage's first round, with `as_reference`."""

BLOCK = 256
"""Identity tokens that are compared with as many others in one matrix product, at most."""

BLOCK_NUMBERS = 2**22
"""How many numbers they may have together, where tokens are long (`router = "discriminant"`)."""


@dataclass(frozen=True)
class Disco(TokenRouted):
    """DKO and SSA.

    `as_reference` follows the authors' code (github.com/Ghy0501/FCIT) where it differs from the paper in
    what a subspace is: it has a fixed number of slots (`max_subspaces`, 8 if that is 0); they open in a
    stage's first round only; later, and when all are taken, a client joins the best match however unlike
    it is; and the softmax at inference includes the empty slots with similarity 0, so the shares of the
    opened ones sum to less than 1. Its code also trains the projector at the rate of everything else:
    set `training.projector_lr` to `training.lr`. Not followed: what depends on the order of clients or
    on batch and GPU (tokens matched per batch, routes by a batch's mean, clients known by their slot,
    tokens and counts in bf16, a running mean that divides one of its terms).
    """

    tau: Annotated[float, Field(ge=-1, le=1)] = 0.9
    """Cosine at or above which a token joins a subspace."""

    temperature: Above0 = 0.05
    """Temperature of the softmax over similarities (SSA)."""

    max_subspaces: Annotated[int, Field(ge=0, le=MOST)] = 0
    """Maximum number of subspaces (0 = no limit)."""

    at_limit: Literal["join", "skip"] = "join"
    """What happens to clients whose tokens would open one more: they `join` the most similar subspace, as
    in the reference code, or are left out of the round (`skip`). By default a round needs all its
    clients: with `skip` set `federation.min_clients`, or the first one left out ends the run."""

    as_reference: bool = False
    """Follow the reference code: subspaces open in a stage's first round only, at most `max_subspaces`
    (8 if that is 0), and empty ones take part in the softmax with similarity 0. The paper's numbers
    were made with `training.projector_lr` equal to `training.lr`, so set that too."""

    gate: Literal["softmax", "argmax", "cosine", "concat"] = "softmax"
    """How similarities become shares: `softmax` (SSA), or the paper's ablations `argmax`, `cosine` (the
    cosines themselves) and `concat` (all 1)."""

    token: TokenKind = "text"
    """What identity tokens are made of: `text`, `image` or `both`."""

    router: Literal["cosine", "discriminant"] = "cosine"
    """How SSA compares a question with the subspaces: by its `cosine` with their identity tokens, as
    published, or by linear `discriminant` analysis, which also knows how the features of a subspace's
    samples vary. Clients then send the second moment of their features with their token, d (d + 1) / 2
    numbers once per task; `temperature` has no effect."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.as_reference and self.at_limit == "skip":
            raise FcitError(
                "method.at_limit: the reference code joins; leave out method.as_reference"
            )
        if self.router == "discriminant":
            if self.as_reference:
                raise FcitError(
                    "method.as_reference: the reference code routes by cosines; leave it out, or set "
                    'method.router = "cosine"'
                )
            if self.gate == "cosine":
                raise FcitError('method.gate: "cosine" needs method.router = "cosine"')

    @property
    def identity(self) -> TokenKind:
        return self.token

    @property
    def discriminant(self) -> bool:
        return self.router == "discriminant"

    @property
    def sends_statistics(self) -> bool:
        return self.discriminant

    @property
    def subspace_limit(self) -> int:
        return self.max_subspaces or (8 if self.as_reference else 0)

    @property
    def asked_per(self) -> Literal["task", "stage", "round"]:
        skips = self.max_subspaces > 0 and self.at_limit == "skip"
        return "round" if skips else super().asked_per

    def begin(self, state: State, stage: Stage) -> State:
        from torch import ones

        opening = {OPENING: {"open": ones(1)}} if self.as_reference else {}
        return replace(state, extras=state.extras | opening)

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        after = super().aggregate(state, updates)
        kept = {name: value for name, value in after.extras.items() if name != OPENING}
        return replace(after, extras=kept)

    # -- DKO: dynamic knowledge organisation (section 4.1) --------------------------------------

    def assign(self, state: State, identities: Sequence[Identity]) -> list[tuple[Identity, int]]:
        """A token joins the most similar subspace if their cosine is at least tau.

        The round's other tokens are grouped by the connected components of cos >= tau, in the order of
        their smallest client id, and each group opens a subspace: the order of arrival has no effect.
        Groups for which there is no room join the most similar subspace, token by token.
        """
        from torch import stack

        tokens, count = self.tokens(state), len(state.adapters)
        joined: list[tuple[Identity, int]] = []
        unmatched: list[Identity] = []
        for identity in identities:
            if tokens is not None:
                cosines = self.likeness(identity.token[None], tokens)[0]
                best = int(cosines.argmax())
                if float(cosines[best]) >= self.tau:
                    joined.append((identity, best))
                    continue
            unmatched.append(identity)
        groups = self._components(unmatched)
        room = max(0, self.subspace_limit - count) if self.subspace_limit else len(groups)
        if self.as_reference and count and OPENING not in state.extras:
            room = 0
        new, late = groups[:room], [member for group in groups[room:] for member in group]
        opened = [(member, count + k) for k, group in enumerate(new) for member in group]
        if not late or self.at_limit == "skip":
            return joined + opened
        known = [*(() if tokens is None else tokens), *map(_mean, new)]
        cosines = self.likeness(stack([member.token for member in late]), stack(known))
        return joined + opened + list(zip(late, map(int, cosines.argmax(dim=1)), strict=True))

    def reason_to_skip(self, state: State, turn: Turn) -> str:
        limit = f"method.max_subspaces = {self.max_subspaces} allows no more"
        reason = super().reason_to_skip(state, turn)
        return reason and f"its identity token is like no subspace's, and {limit}"

    def _components(self, identities: Sequence[Identity]) -> list[list[Identity]]:
        """Groups joined by chains of cos >= tau; the input's order (client ids) orders them."""
        from torch import cat, int64, stack, zeros

        longest = max((len(identity.token) for identity in identities), default=1)
        size = max(1, min(BLOCK, BLOCK_NUMBERS // longest))

        def block(start: int) -> Tensor:
            return stack([identity.token for identity in identities[start : start + size]])

        groups: dict[int, list[Identity]] = {}
        group_of: Any = zeros(len(identities), dtype=int64)
        for start in range(0, len(identities), size):
            rows, earlier = block(start), range(0, start + 1, size)
            cosines = cat([self.likeness(rows, block(other)) for other in earlier], dim=1)
            for number, alike in enumerate(cosines.double() >= self.tau, start):
                near: list[int] = group_of[:number][alike[:number]].unique().tolist()
                first, *rest = near or [number]
                group = groups.setdefault(first, [])
                for other in rest:
                    group += groups.pop(other)
                    group_of[group_of == other] = first
                group.append(identities[number])
                group_of[number] = first
        return list(groups.values())

    # -- SSA: subspace selective activation (section 4.2) ---------------------------------------

    @property
    def gating(self) -> Gating:
        """alpha = softmax(cos(f, token_i) / temperature) over the opened subspaces; with `discriminant`
        the softmax of its scores, which is the probability of each subspace."""
        if self.discriminant:
            return Gating(self.gate, 1.0)
        return Gating(self.gate, self.temperature, self.subspace_limit if self.as_reference else 0)


def _mean(group: Sequence[Identity]) -> Tensor:
    """The token [d] that a group's subspace opens with."""
    from torch import stack, tensor

    samples = tensor([member.samples for member in group], dtype=group[0].token.dtype)
    return (stack([member.token for member in group]) * (samples / samples.sum())[:, None]).sum(0)
