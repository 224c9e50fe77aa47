"""The base of methods that route by identity tokens, and the formulas of routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from fcit.methods import Gating, Method, Query, TokenRouted
from fcit.types import FcitError, Identity, Stage, State, Task, Turn

TASK = Task("t", ("t",))
COSINES = {"0": 0.9, "1": 0.1, "2": 0.5}


@dataclass(frozen=True)
class ByParity(TokenRouted):
    """Clients with an even number share a subspace, and 1 and 3 the next; 5 is left out."""

    def assign(self, state: State, identities: Sequence[Identity]) -> list[tuple[Identity, int]]:
        return [(one, one.client % 2) for one in identities if one.client != 5]

    @property
    def gating(self) -> Gating:
        return Gating("argmax")


def begun(method: Method) -> State:
    return method.begin(method.start({"w": torch.ones(2)}, {"p": torch.zeros(1)}), Stage((TASK,)))


def met(state: State, *clients: int) -> State:
    rows = [torch.tensor([1.0, client]) for client in clients]
    given = [Identity(k, "t", row, k + 1) for k, row in zip(clients, rows, strict=True)]
    return ByParity().organise(state, given)


def test_before_the_first_token_there_are_no_subspaces() -> None:
    method, state = ByParity(), begun(ByParity())
    assert state.adapters == {}
    assert method.tokens(state) is None
    assert method.members(state) == {}
    assert method.route(state, Query("t", torch.ones(2))) == {}


def test_tokens_members_and_adapters_follow_what_is_assigned() -> None:
    method, state = ByParity(), begun(ByParity())
    state = met(met(state, 3, 0), 1, 2)
    assert method.members(state) == {"0/t": 0, "3/t": 1, "1/t": 1, "2/t": 0}
    assert list(state.adapters) == ["0", "1"]
    tokens = method.tokens(state)
    assert tokens is not None
    want = torch.tensor([[1.0, (0 * 1 + 2 * 3) / 4], [1.0, (3 * 4 + 1 * 2) / 6]])
    torch.testing.assert_close(tokens, want)
    assert method.adapter(state, Turn(3, TASK, 0, 0)) == "1"
    assert method.route(state, Query("t", torch.tensor([1.0, 2.3]))) == {"0": 0.0, "1": 1.0}


def test_a_client_left_out_is_skipped_with_a_reason_and_asked_again() -> None:
    method, state = ByParity(), met(begun(ByParity()), 0, 5)
    turns = [Turn(client, TASK, 0, 0) for client in (0, 5)]
    assert [method.reason_to_skip(state, turn) for turn in turns] == [
        "",
        "its identity token joined no subspace",
    ]
    assert method.to_identify(state, turns) == turns[1:]
    assert met(state) is state


def test_a_method_that_keeps_no_tokens_asks_everybody_and_skips_nobody() -> None:
    @dataclass(frozen=True)
    class Curious(Method):
        @property
        def identity(self):
            return "text"

    turns = [Turn(client, TASK, 0, 0) for client in (0, 1)]
    assert Curious().to_identify(State(), turns) == turns
    assert Method().to_identify(State(), turns) == []
    assert not any(Curious().reason_to_skip(State(), turn) for turn in turns)


@pytest.mark.parametrize(
    ("gating", "want"),
    [
        (Gating(), [1.0, 1.0, 1.0]),
        (Gating("cosine"), [0.9, 0.1, 0.5]),
        (Gating("argmax"), [1.0, 0.0, 0.0]),
        (Gating("softmax", 0.5), torch.tensor([1.8, 0.2, 1.0]).softmax(0).tolist()),
    ],
)
def test_formulas_of_similarities(gating: Gating, want: list[float]) -> None:
    shares = gating.shares(COSINES, COSINES, "t")
    assert list(shares) == list(COSINES)
    assert list(shares.values()) == pytest.approx(want)


def test_the_most_similar_share_equally_and_nothing_similar_opens_nothing() -> None:
    assert Gating("argmax").shares((), {"0": 0.5, "1": 0.5}, "t") == {"0": 0.5, "1": 0.5}
    for gate in ("softmax", "argmax", "cosine"):
        assert Gating(gate, 1.0).shares(["0"], {}, "t") == {}


def test_a_datasets_adapter_is_chosen_and_other_datasets_are_refused() -> None:
    gating = Gating("choose")
    assert gating.shares(["A", "B"], {}, "B") == {"A": 0.0, "B": 1.0}
    with pytest.raises(FcitError, match="its own datasets only: A, B"):
        gating.shares(["A", "B"], {}, "")


def test_a_class_that_is_not_written_as_the_guide_says_is_refused() -> None:
    @dataclass(frozen=True)
    class Unassigned(TokenRouted): ...

    @dataclass(frozen=True)
    class Unrouted(TokenRouted):
        def assign(self, state, identities):
            return []

    @dataclass(frozen=True)
    class Plain(Unrouted):
        def gating(self):
            return Gating("argmax")

    class Bare(Unrouted):
        temperature: float = 1.0

    for kind, said in [
        (Bare, r"put @dataclass\(frozen=True\) above Bare"),
        (Unassigned, "does not define assign"),
        (Unrouted, "does not define gating"),
        (Plain, "put @property above gating"),
    ]:
        with pytest.raises(FcitError, match=said):
            kind()


def test_a_gating_function_that_does_not_exist_is_refused() -> None:
    with pytest.raises(FcitError, match=r"Gating\.gate: .*nearest"):
        Gating("nearest")  # pyright: ignore[reportArgumentType]
    with pytest.raises(FcitError, match=r"temperature: must be above 0"):
        Gating("softmax")
