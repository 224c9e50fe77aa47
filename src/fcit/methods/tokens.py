"""TokenRouted: the base of methods that choose subspaces by identity tokens (DISCO, HiDe)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from fcit.methods import moments
from fcit.methods.base import Method, Query, TokenKind
from fcit.types import FcitError, Identity, Stage, State, Tensor, Turn, Weights
from fcit.weights import cosine

MEMBERS = "members"


@dataclass(frozen=True)
class TokenRouted(Method):
    """Every subspace has an identity token, the mean of its clients' tokens weighted by sample count.

    The server's state keeps the tokens, and as members which client belongs where: it is asked for a
    token once per task. Subspace k (0, 1, ...) is the adapter named "k". A method below says which
    subspace a new token joins (`assign`) and how cosines become activation factors (`gating`).
    """

    tokens_name: ClassVar[str] = "identity"
    """The name in `State.extras` of the tokens [K, d] and their sample counts [K]."""

    def __post_init__(self) -> None:
        """Raise FcitError, besides what `Method` refuses, on a class without `assign` or `gating`."""
        super().__post_init__()
        for hook, base in (("assign", TokenRouted), ("gating", Method)):
            if getattr(type(self), hook) is getattr(base, hook):
                raise FcitError(f"{self.name}: does not define {hook} (docs/add-a-method.md)")

    @property
    def identity(self) -> TokenKind:
        return "text"

    @property
    def discriminant(self) -> bool:
        """Whether questions are routed by linear discriminant analysis. Tokens then hold second moments
        as well (see `moments`)."""
        return False

    def make_token(self, features: Tensor) -> Tensor:
        return moments.token(features) if self.discriminant else super().make_token(features)

    def token_width(self, features: int) -> int:
        return moments.width(features) if self.discriminant else features

    def token_mean(self, tokens: Tensor) -> Tensor:
        return moments.means(tokens) if self.discriminant else tokens

    def token_fault(self, token: Tensor) -> str:
        return moments.fault(token) if self.discriminant else ""

    @property
    def asked_per(self) -> Literal["task", "stage", "round"]:
        """`round` if `assign` may leave clients out, who are then asked for a token again, or if a method
        of your own says otherwise who is a member or asked."""
        return "task" if self._asks_as(TokenRouted) else "round"

    def _asks_as(self, base: "type[TokenRouted]") -> bool:
        """Whether it remembers members and asks for tokens as a class above it does."""
        names = ("member", "to_identify")
        return all(getattr(type(self), name) is getattr(base, name) for name in names)

    def assign(self, state: State, identities: Sequence[Identity]) -> list[tuple[Identity, int]]:
        """Pairs of a new token and the number of its subspace, in the order in which tokens enter the
        mean. The number after the last opens a subspace. A client that is left out is skipped in this
        round."""
        raise NotImplementedError

    def member(self, state: State, client: int, task: str) -> str:
        """The name under which a client is remembered; it is asked for one token per name."""
        return f"{client}/{task}"

    def tokens(self, state: State) -> Tensor | None:
        """The subspaces' tokens [K, d]; None before the first came."""
        stored = state.extras.get(self.tokens_name)
        return stored["tokens"] if stored else None

    def members(self, state: State) -> dict[str, int]:
        """The subspace of every client and task, by `member` name."""
        return {name: int(number) for name, number in state.extras.get(MEMBERS, {}).items()}

    def begin(self, state: State, stage: Stage) -> State:
        """Subspaces open as tokens come, not with stages."""
        return state

    def to_identify(self, state: State, turns: Sequence[Turn]) -> list[Turn]:
        """Clients that have no subspace yet."""
        return [turn for turn in turns if not self._belongs(state, turn)]

    def organise(self, state: State, identities: Sequence[Identity]) -> State:
        """Add each new token to the mean of the subspace that `assign` gives it, and open what is new."""
        from torch import int64, stack, tensor

        tokens: list[Tensor] = []
        counts: list[int] = []
        if stored := state.extras.get(self.tokens_name):
            tokens = list(stored["tokens"].unbind(0))
            counts = [int(count) for count in stored["samples"].unbind(0)]
        members: Weights = {}
        arrived = sorted(identities, key=lambda identity: (identity.client, identity.task))
        for identity, number in self.assign(state, arrived):
            if not 0 <= number <= max(len(tokens), len(state.adapters)):
                raise FcitError(
                    f"{self.name}: assign gives client {identity.client} subspace {number}; the next new "
                    f"one is {max(len(tokens), len(state.adapters))}"
                )
            while len(tokens) <= number:
                tokens.append(identity.token.new_zeros(identity.token.shape))
                counts.append(0)
            total = counts[number] + identity.samples
            weighted = tokens[number] * counts[number] + identity.token * identity.samples
            tokens[number], counts[number] = weighted / total, total
            members[self.member(state, identity.client, identity.task)] = tensor(number)
        if not members:
            return state
        while len(state.adapters) < len(tokens):
            state = self.open(state, str(len(state.adapters)))
        kept = {
            self.tokens_name: {"tokens": stack(tokens), "samples": tensor(counts, dtype=int64)},
            MEMBERS: state.extras.get(MEMBERS, {}) | members,
        }
        return replace(state, extras=state.extras | kept)

    def reason_to_skip(self, state: State, turn: Turn) -> str:
        return "" if self._belongs(state, turn) else "its identity token joined no subspace"

    def _belongs(self, state: State, turn: Turn) -> bool:
        return self.member(state, turn.client, turn.task.name) in state.extras.get(MEMBERS, {})

    def adapter(self, state: State, turn: Turn) -> str:
        return str(int(state.extras[MEMBERS][self.member(state, turn.client, turn.task.name)]))

    def likeness(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Cosines [n, K] of tokens [n, w] with others [K, w]; tokens of text and image average the
        cosines of the two."""
        rows, tokens = self.token_mean(rows), self.token_mean(tokens)
        if self.identity != "both":
            return cosine(rows, tokens)
        halves = zip(rows.chunk(2, dim=-1), tokens.chunk(2, dim=-1), strict=True)
        text, image = (cosine(a, b) for a, b in halves)
        return (text + image) / 2

    def similarities(self, state: State, query: Query) -> Mapping[str, float]:
        tokens = self.tokens(state)
        if tokens is None or query.feature is None:
            return {}
        if self.discriminant:
            weights, bias = moments.discriminant(tokens, state.extras[self.tokens_name]["samples"])
            values = weights @ query.feature.double() + bias
        else:
            values = self.likeness(query.feature[None], tokens)[0]
        return {str(number): float(value) for number, value in enumerate(values)}
