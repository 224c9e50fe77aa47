"""What a method's hooks return is checked before it does harm: method, hook and part are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fcit.methods import Method, Query
from fcit.methods.disco import Disco
from fcit.rounds.client import Data
from fcit.rounds.evaluate import activate, chooses
from fcit.rounds.hooks import checked, heirs, routed
from fcit.rounds.records import log_line
from fcit.rounds.server import FederatedRun, Position, federate
from fcit.types import FcitError, Sample, Setting, Stage, State, Task, Turn, Update

TASK = Task("red", ("red",))
SETTING = Setting("one", (Stage((TASK,)),), clients=1, per_round=1, rounds=1)
BLANK = {"a": torch.zeros(2)}
TWO = State({"0": BLANK, "1": BLANK})


@dataclass
class Echo:
    """An engine whose client sends back what it got; counts its turns."""

    turns: list[Turn] = field(default_factory=list)

    def identify(self, turns):
        return ()

    def run(self, jobs):
        for job in jobs:
            self.turns.append(job.turn)
            yield Update(job.turn.client, 1, job.received.adapters, {}, {"loss": 1.0})


def follow(method: Method, engine: Echo) -> list:
    run = FederatedRun(SETTING, [[[Turn(0, TASK, 0, 0, True)]]], method, token_width=2)
    start = method.start(BLANK, {})
    return list(federate(run, start, engine))


def left(hook: str, what: dict[str, Any]) -> Method:
    """A method one of whose hooks leaves something in the extras."""
    usual = getattr(Method, hook)

    def changed(self: Method, state: State, given: Any) -> State:
        after = usual(self, state, given)
        return replace(after, extras=after.extras | what)

    kind = type("Left", (Method,), {hook: changed, "__module__": "methods.atlas"})
    return kind(projector="frozen")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"places": {"X": 3}}, r"an int in extras\['places'\]\['X'\]; extras hold tensors"),
    ({"places": torch.ones(2)}, r"a Tensor in extras\['places'\], which must be a dict of tensors"),
    ({"places": None}, r"None in extras\['places'\], which must be a dict of tensors"),
    ({"speed/0": {"X": torch.ones(1)}}, r"extras\['speed/0'\]; a name is text without a slash"),
]


@pytest.mark.parametrize(("what", "said"), WRONG, ids=str)
@pytest.mark.parametrize("hook", ["begin", "organise", "aggregate", "end"])
def test_what_cannot_be_stored_is_refused_where_it_arises(
    hook: str, what: dict[str, Any], said: str
) -> None:
    engine = Echo()
    with pytest.raises(FcitError, match=f"^atlas: {hook} left {said}$"):
        follow(left(hook, what), engine)
    assert len(engine.turns) == (hook in ("aggregate", "end"))


def test_a_hook_that_returns_no_state_is_named() -> None:
    with pytest.raises(FcitError, match="base: end returned None; it must return a State"):
        checked(Method(), "end", None)  # type: ignore[arg-type]
    with pytest.raises(FcitError, match="base: end left a list in adapters, which must be a dict"):
        checked(Method(), "end", State([], {}))  # type: ignore[arg-type]


def test_a_client_whose_adapter_is_not_open_is_named() -> None:
    class Elsewhere(Method):
        def adapter(self, state: State, turn: Turn) -> str:
            return "7"

    with pytest.raises(FcitError, match="adapter gives client 0 '7', and the state has 0; open it"):
        follow(Elsewhere(projector="frozen"), Echo())


# -- merged adapters -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heirs(Method):
    merged: tuple[tuple[str, str], ...] = ()

    def heirs(self, state: State) -> Mapping[str, str]:
        return dict(self.merged)


def test_heirs_are_asked_after_the_end_and_logged_only_where_there_are_some() -> None:
    @dataclass(frozen=True)
    class Renamed(Method):
        def end(self, state: State, stage: Stage) -> State:
            return replace(state, adapters={"both": state.adapters["0"]})

        def heirs(self, state: State) -> Mapping[str, str]:
            return {"0": "both"} if "both" in state.adapters else {}

    for method, found in ((Renamed(projector="frozen"), {"0": "both"}), (Method(), None)):
        if found is None:
            method = replace(method, projector="frozen")
        (_, at, report), _ = follow(method, Echo())
        assert at == Position(0, 1)
        assert log_line(at, report, 1.0).get("heirs") == found


def test_an_heir_that_merged_as_well_is_followed() -> None:
    method = Heirs(merged=(("4", "3"), ("3", "2"), ("2", "0")))
    assert heirs(method, TWO) == {"4": "0", "3": "0", "2": "0"}


@pytest.mark.parametrize("merged", [("2", "7"), ("1", "0"), ("2", "2")])
def test_an_heir_that_is_not_there_is_refused(merged: tuple[str, str]) -> None:
    gone, heir = merged
    with pytest.raises(FcitError, match=f"heirs says that adapter '{gone}' is now in '{heir}'"):
        heirs(Heirs(merged=(merged,)), TWO)


# -- routes ----------------------------------------------------------------------------------------


def own(given: Mapping[str, Any], near: Mapping[str, Any] | None = None) -> Method:
    """A method with a route of its own."""

    class Own(Method):
        def similarities(self, state: State, query: Query) -> Mapping[str, float]:
            return near or {}

        def route(self, state: State, query: Query) -> Mapping[str, float]:
            return given

    return Own()


NAN = float("nan")


@pytest.mark.parametrize(
    ("given", "near", "said"),
    [
        ({"0": 1.0, "1": NAN}, {}, "route gives adapter '1' nan, which is no finite number"),
        ({"0": 1.0, "1": torch.ones(2)}, {}, "route gives adapter '1' tensor"),
        ({"0": 1.0, "1": None}, {}, "route gives adapter '1' None"),
        ({"0": 1.0}, {}, "route names the adapters 0, and the state has 0, 1; give every adapter"),
        ({"0": 1, "1": 0, "2": 0}, {}, "route names the adapters 0, 1, 2, and the state has 0, 1"),
        ({"0": 1.0, "1": 0.0}, {"0": NAN}, "similarities gives adapter '0' nan"),
        ({0: 0.0, 1: 1.0}, {}, "route names 0; names of adapters are text"),
        ([1.0, 0.0], {}, "route returned a list; it must return a dict"),
    ],
)
def test_a_route_that_is_none_is_refused(given: dict, near: dict, said: str) -> None:
    with pytest.raises(FcitError, match=f"^test_hooks: {said}"):
        routed(own(given, near), TWO, Query("", None))


def test_tensors_of_one_number_are_numbers_and_no_share_is_the_models_own_choice() -> None:
    given = {"0": torch.tensor(0.25), "1": 1}
    shares, near = routed(own(given, {"0": torch.tensor(0.5)}), TWO, Query("", None))
    assert (shares, near) == ({"0": 0.25, "1": 1.0}, {"0": 0.5})
    assert all(type(value) is float for value in (*shares.values(), *near.values()))
    assert routed(own({}), TWO, Query("", None)) == ({}, {})


def test_similarities_that_lack_an_adapter_are_named() -> None:
    class Few(Method):
        def similarities(self, state: State, query: Query) -> Mapping[str, float]:
            return {"1": 0.5}

    with pytest.raises(
        FcitError, match="similarities names the adapters 1, and the state has 0, 1"
    ):
        routed(Few(), TWO, Query("", None))


def test_a_batch_of_which_only_some_questions_have_shares_is_refused() -> None:
    class Some(Method):
        def route(self, state: State, query: Query) -> Mapping[str, float]:
            return {"0": 1.0, "1": 0.0} if query.dataset == "A" else {}

    samples = [Sample(name, name, "", "", ("",)) for name in "AB"]
    model: Any = SimpleNamespace(subspaces=SimpleNamespace(names=("0", "1")), device="cpu")
    with pytest.raises(FcitError, match="route gives shares for some questions only"):
        activate(model, None, Some(), TWO, Data(samples, [Path()] * 2))


def test_with_all_factors_1_no_subspace_is_chosen() -> None:
    assert chooses(Disco()) and chooses(Disco(gate="argmax"))
    assert not chooses(Disco(gate="concat"))
    assert not chooses(own({"0": 1.0}))  # without identity features
