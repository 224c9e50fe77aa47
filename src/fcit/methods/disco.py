"""disco: DISCO (Guo et al. 2025, Federated Continual Instruction Tuning, arXiv 2503.12897, section 4).

Dynamic knowledge organisation (DKO) gives every client, by its identity token, the subspace of clients
who learn the same; subspace selective activation (SSA) activates, per test instruction, the subspaces
whose identity tokens are like it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from fcit.methods.base import Above0, Gating, TokenKind
from fcit.methods.tokens import TokenRouted
from fcit.types import Identity, State, Turn


@dataclass(frozen=True)
class Disco(TokenRouted):
    """DKO and SSA."""

    tau: Annotated[float, Field(ge=-1, le=1)] = 0.9
    """Cosine at or above which a token joins a subspace."""

    temperature: Above0 = 0.05
    """Temperature of the softmax over similarities (SSA)."""

    max_subspaces: Annotated[int, Field(ge=0)] = 0
    """Maximum number of subspaces (0 = no limit); clients whose tokens would open another are skipped."""

    gate: Literal["softmax", "argmax", "cosine", "concat"] = "softmax"
    """How similarities become shares: `softmax` (SSA), or the paper's ablations `argmax`, `cosine` (the
    cosines themselves) and `concat` (all 1)."""

    token: TokenKind = "text"
    """What identity tokens are made of: `text`, `image` or `both`."""

    @property
    def identity(self) -> TokenKind:
        return self.token

    @property
    def subspace_limit(self) -> int:
        return self.max_subspaces

    # -- DKO: dynamic knowledge organisation (section 4.1) --------------------------------------

    def assign(self, state: State, identities: Sequence[Identity]) -> list[tuple[Identity, int]]:
        """A token joins the most similar subspace if their cosine is at least tau.

        The round's other tokens are grouped by the connected components of cos >= tau, in the order of
        their smallest client id, and each group opens a subspace: the order of arrival has no effect.
        """
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
        if self.max_subspaces:
            groups = groups[: max(0, self.max_subspaces - count)]
        opened = [(member, count + k) for k, group in enumerate(groups) for member in group]
        return joined + opened

    def reason_to_skip(self, state: State, turn: Turn) -> str:
        limit = f"method.max_subspaces = {self.max_subspaces} allows no more"
        reason = super().reason_to_skip(state, turn)
        return reason and f"its identity token is like no subspace's, and {limit}"

    def _components(self, identities: Sequence[Identity]) -> list[list[Identity]]:
        """Groups joined by chains of cos >= tau; the input's order (client ids) orders them."""
        groups: list[list[Identity]] = []
        for identity in identities:
            near = [group for group in groups if self._alike(identity, group)]
            if not near:
                groups.append([identity])
                continue
            first, *rest = near
            first += [member for group in rest for member in group]
            first.append(identity)
            groups = [group for group in groups if not any(group is merged for merged in rest)]
        return groups

    def _alike(self, identity: Identity, group: Sequence[Identity]) -> bool:
        cosines = (self.likeness(identity.token[None], other.token[None]) for other in group)
        return any(float(cosine[0, 0]) >= self.tau for cosine in cosines)

    # -- SSA: subspace selective activation (section 4.2) ---------------------------------------

    @property
    def gating(self) -> Gating:
        """alpha = softmax(cos(f, token_i) / temperature) over the opened subspaces."""
        return Gating(self.gate, self.temperature)
