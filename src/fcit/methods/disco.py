"""DISCO (Guo et al. 2025, Federated Continual Instruction Tuning, arXiv 2503.12897, section 4).

Dynamic knowledge organisation (DKO) gives every client, by its identity token, the subspace of those
who learn the same; subspace selective activation (SSA) opens, per test instruction, the subspaces whose
identity tokens are like it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from fcit.methods.base import Method, Query
from fcit.types import FcitError, Identity, Stage, State, Turn, Weights
from fcit.weights import cosine

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Disco(Method):
    """tau: cosine at or above which a token joins a subspace. temperature: of SSA's softmax.

    max_subspaces: a cap on their number (0: none). gate: "softmax" (SSA), or the paper's ablations
    "argmax", "cosine" (the cosines themselves) and "concat" (all 1). token: what identity
    tokens are made of.
    """

    tau: float = 0.9
    temperature: float = 0.05
    max_subspaces: int = 0
    gate: Literal["softmax", "argmax", "cosine", "concat"] = "softmax"
    token: Literal["text", "image", "both"] = "text"

    opens: ClassVar = "tokens"

    def __post_init__(self) -> None:
        Method.__post_init__(self)
        if not -1 <= self.tau <= 1:
            raise FcitError(f"method.tau: {self.tau} is not a cosine; use a value from -1 to 1")
        if not 0 < self.temperature < float("inf"):
            raise FcitError(f"method.temperature: {self.temperature} must be above 0")
        if self.max_subspaces < 0:
            raise FcitError(
                f"method.max_subspaces: {self.max_subspaces} must be 0 (no cap) or more"
            )

    @property
    def identity(self) -> Literal["text", "image", "both"]:
        return self.token

    def begin(self, state: State, stage: Stage) -> State:
        return state

    # -- DKO: dynamic knowledge organisation (section 4.1) --------------------------------------

    def unknown(self, state: State, turns: Sequence[Turn]) -> list[Turn]:
        known = state.extras.get("members", {})
        return [turn for turn in turns if _key(turn.client, turn.task.name) not in known]

    def organise(self, state: State, identities: Sequence[Identity]) -> State:
        """Match new tokens with the cache; those like none open subspaces together.

        A token joins the best subspace at or above tau. The others of the round are grouped by the
        connected components of cos >= tau, in the order of their smallest client id, and each group
        opens a subspace: independent of the order of arrival. Every subspace's token is the mean of
        its clients' tokens weighted by sample count; each (client, task) enters it once. Where the
        cap on subspaces is reached, the clients of further groups stay unknown.
        """
        fresh = sorted(identities, key=lambda one: (one.client, one.task))
        from torch import int64, stack, tensor

        tokens, counts = _cache(state)
        members: Weights = {}
        lonely: list[Identity] = []
        homes: list[tuple[Identity, int]] = []
        for one in fresh:
            likeness = self._likeness(one.token[None], tokens)[0] if tokens else None
            best = int(likeness.argmax()) if likeness is not None else -1
            if likeness is not None and float(likeness[best]) >= self.tau:
                homes.append((one, best))
            else:
                lonely.append(one)
        groups = self._components(lonely)
        if self.max_subspaces:
            groups = groups[: max(0, self.max_subspaces - len(tokens))]
        for group in groups:
            homes += [(one, len(tokens)) for one in group]
            tokens.append(group[0].token.new_zeros(group[0].token.shape))
            counts.append(0)
        for one, home in homes:
            total = counts[home] + one.samples
            tokens[home] = (tokens[home] * counts[home] + one.token * one.samples) / total
            counts[home] = total
            members[_key(one.client, one.task)] = tensor(home)
        if not homes:
            return state
        while len(state.adapters) < len(tokens):
            state = self.open(state, str(len(state.adapters)))
        held = {"tokens": stack(tokens), "samples": tensor(counts, dtype=int64)}
        members = state.extras.get("members", {}) | members
        return replace(state, extras=state.extras | {"identity": held, "members": members})

    def adapter(self, state: State, turn: Turn) -> str:
        return str(int(state.extras["members"][_key(turn.client, turn.task.name)]))

    def _components(self, identities: Sequence[Identity]) -> list[list[Identity]]:
        """Groups joined by chains of cos >= tau; the input's order (client ids) orders them."""
        groups: list[list[Identity]] = []
        for one in identities:
            near = [
                group
                for group in groups
                if any(self._alike(one.token, other.token) for other in group)
            ]
            if not near:
                groups.append([one])
                continue
            first, *rest = near
            first += [other for group in rest for other in group]
            first.append(one)
            groups = [group for group in groups if not any(group is gone for gone in rest)]
        return groups

    def _alike(self, a: Tensor, b: Tensor) -> bool:
        return float(self._likeness(a[None], [b])[0, 0]) >= self.tau

    def _likeness(self, rows: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """Cosines [n, K]; tokens made of both average the text's and the image's."""
        from torch import stack

        other = stack(list(tokens))
        if self.token != "both":
            return cosine(rows, other)
        halves = zip(rows.chunk(2, dim=-1), other.chunk(2, dim=-1), strict=True)
        return sum((cosine(a, b) for a, b in halves), start=rows.new_zeros(())) / 2

    # -- SSA: subspace selective activation (section 4.2) ---------------------------------------

    def similarities(self, state: State, query: Query) -> Mapping[str, float]:
        """cos(f, token_i) of every subspace i."""
        tokens, _ = _cache(state)
        if not tokens or query.feature is None:
            return {}
        cosines = self._likeness(query.feature[None], tokens)[0]
        return {str(k): float(cosine) for k, cosine in enumerate(cosines)}

    def route(self, state: State, query: Query) -> Mapping[str, float]:
        """alpha = softmax(cos(f, token_i) / temperature) over the opened subspaces."""
        from torch import tensor

        similarities = self.similarities(state, query)
        s = tensor(list(similarities.values()))
        if self.gate == "softmax":
            shares = (s / self.temperature).softmax(dim=0)
        elif self.gate == "argmax":
            shares = (s == s.max()).to(s.dtype) if len(s) else s
            shares = shares / shares.sum()
        elif self.gate == "cosine":
            shares = s
        else:
            shares = s.new_ones(s.shape)
        return dict(zip(similarities, map(float, shares), strict=True))


def _cache(state: State) -> tuple[list[Tensor], list[int]]:
    """The global identity tokens and their sample counts, one per subspace."""
    held = state.extras.get("identity")
    if held is None:
        return [], []
    return list(held["tokens"].unbind(0)), [int(count) for count in held["samples"].unbind(0)]


def _key(client: int, task: str) -> str:
    return f"{client}/{task}"
