"""The stage and round loop with an engine that has no model: order, bits, and going on from anywhere."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch

from fcit.benchmark import schedule
from fcit.methods.base import Method
from fcit.methods.disco import Disco
from fcit.rounds.federation import Federation
from fcit.rounds.server import Engine, FederatedRun, Position, Round, federate, take_round
from fcit.seeds import torch_stream
from fcit.types import Identity, Job, Setting, Stage, State, Task, Turn, Update
from fcit.weights import flatten

RED, BLUE = Task("red", ("red",)), Task("blue", ("blue",))
SETTING = Setting(
    "small", (Stage((RED,)), Stage((RED, BLUE, BLUE))), clients=5, per_round=3, rounds=2, epochs=4
)
PLAN = schedule.plan(SETTING, seed=1)
BLANK = {"a": torch.zeros(3, 5)}
EVERY = [Position(0, 1), Position(0, 2), Position(0, 2, True)]
EVERY += [replace(position, stage=1) for position in EVERY]


@dataclass(frozen=True)
class Stepping(Disco):
    """DISCO whose stages leave a mark, so that one begun or ended twice is seen."""

    def begin(self, state: State, stage: Stage) -> State:
        return _marked(state, "begun", 1.0)

    def end(self, state: State, stage: Stage) -> State:
        return _marked(state, "ended", 1.0)


def _marked(state: State, name: str, more: float) -> State:
    count = state.extras.get(name, {"n": torch.zeros(1)})["n"] + more
    return replace(state, extras=state.extras | {name: {"n": count}})


@dataclass
class Scripted:
    """An engine whose clients add noise of their own to what they receive; replies are shuffled."""

    shuffle: int = 0
    calls: list[tuple[str, list[tuple[int, str]]]] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    def identify(self, turns: Sequence[Turn]) -> Iterator[Identity]:
        self.calls.append(("identify", [(turn.client, turn.task.name) for turn in turns]))
        for turn in self._shuffled(turns):
            sign = 1.0 if turn.task == RED else -1.0
            token = torch.tensor([sign, 0.01 * turn.client])
            yield Identity(turn.client, turn.task.name, token, 10 + turn.client)

    def run(self, jobs: Sequence[Job]) -> Iterator[Update]:
        self.calls.append(("run", [(job.turn.client, job.turn.task.name) for job in jobs]))
        self.jobs += jobs
        for job in self._shuffled(jobs):
            turn = job.turn
            noise = torch_stream(0, "test", turn.client, turn.stage, turn.round)

            def learnt(weights: dict, noise=noise) -> dict:
                return {k: v + torch.randn(v.shape, generator=noise) for k, v in weights.items()}

            adapters = {name: learnt(part) for name, part in job.received.adapters.items()}
            extras = {name: learnt(part) for name, part in job.received.extras.items()}
            yield Update(turn.client, 10 + turn.client, adapters, extras, {"loss": 1.0})

    def _shuffled(self, items: Sequence) -> list:
        return random.Random(self.shuffle).sample(list(items), len(items))


@dataclass
class Ledger:
    """What a run committed, in order."""

    commits: list[tuple[Position, State]] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    stages: list[Position] = field(default_factory=list)

    def follow(
        self, run: FederatedRun, state: State, engine: Engine, done: Position | None = None
    ) -> State:
        """Do what is left of a run; its last state."""
        for state, position, report in federate(run, state, engine, done):  # noqa: B020
            self.commits.append((position, state))
            if report:
                self.rounds.append(report)
            else:
                self.stages.append(position)
        return state


def go(
    engine: Scripted,
    ledger: Ledger,
    state: State | None = None,
    done: Position | None = None,
    method: Method | None = None,
) -> State:
    method = method or Stepping()
    begun = state or method.start(BLANK, {"w": torch.zeros(7)})
    return ledger.follow(FederatedRun(SETTING, PLAN, method, token_width=2), begun, engine, done)


def same(a: State, b: State) -> bool:
    one, other = flatten(a), flatten(b)
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def whole() -> tuple[Scripted, Ledger, State]:
    engine, ledger = Scripted(), Ledger()
    return engine, ledger, go(engine, ledger)


def test_every_turn_of_the_plan_trains_once_in_its_order(whole) -> None:
    engine, ledger, _ = whole
    planned = [turn for stage in PLAN for turns in stage for turn in turns]
    assert [job.turn for job in engine.jobs] == planned
    assert {job.epochs for job in engine.jobs} == {4}
    assert [position for position, _ in ledger.commits] == EVERY
    assert len(ledger.rounds) == len([position for position in EVERY if not position.ended])


def test_a_method_may_ask_every_client_in_every_round_and_give_its_own_reason_to_skip_one() -> None:
    @dataclass(frozen=True)
    class Curious(Method):
        @property
        def identity(self):
            return "text"

        def reason_to_skip(self, state: State, turn: Turn) -> str:
            return "four is late" if turn.client == 4 else ""

    engine, ledger = Scripted(), Ledger()
    begun = Curious().start(BLANK, {"w": torch.zeros(7)})
    run = FederatedRun(
        SETTING, PLAN, Curious(), federation=Federation(min_clients=1), token_width=2
    )
    ledger.follow(run, begun, engine)
    turns = [turn for stage in PLAN for turns in stage for turn in turns]
    assert [who for kind, asked in engine.calls if kind == "identify" for who in asked] == [
        (turn.client, turn.task.name) for turn in turns
    ]
    assert [job.turn for job in engine.jobs] == [turn for turn in turns if turn.client != 4]
    faults = [fault for report in ledger.rounds for fault in report.faults]
    assert {(fault.client, fault.kind, fault.detail) for fault in faults} == {
        (4, "unmatched", "four is late")
    }


def test_a_client_is_asked_for_a_token_only_where_it_meets_a_task_first(whole) -> None:
    engine, ledger, _ = whole
    assert [kind for kind, _ in engine.calls] == ["identify", "run"] * 4
    met: set[tuple[int, str]] = set()
    for (_, asked), (_, ran), report in zip(
        engine.calls[::2], engine.calls[1::2], ledger.rounds, strict=True
    ):
        assert asked == [who for who in ran if who not in met]
        assert sorted((one.client, one.task) for one in report.identities) == sorted(asked)
        met |= set(ran)
    clients = [client for client, _ in met]
    assert len(met) < 12, "the plan of this test should let a client come again"
    assert len(set(clients)) < len(clients), "and let one meet two tasks"


def test_a_client_is_sent_its_own_subspace_and_that_alone_is_averaged(whole) -> None:
    _, ledger, _ = whole
    before = dict(zip(EVERY[1:], ledger.commits, strict=False))  # what stood before each commit
    ends = [position for position in EVERY if not position.ended]
    for position, report in zip(ends[1:], ledger.rounds[1:], strict=True):
        _, stood = before[position]
        touched = {name for update in report.updates for name in update.adapters}
        _, after = next(commit for commit in ledger.commits if commit[0] == position)
        for job in report.jobs:
            (name,) = job.received.adapters
            home = after.extras["members"][f"{job.turn.client}/{job.turn.task.name}"]
            assert name == str(int(home))
        for name, block in stood.adapters.items():
            moved = not torch.equal(block["a"], after.adapters[name]["a"])
            assert moved == (name in touched)


def test_the_average_is_weighed_by_samples() -> None:
    method = Method()
    state = method.begin(method.start(BLANK, {"w": torch.zeros(7)}), SETTING.stages[0])
    after, report = take_round(
        FederatedRun(SETTING, PLAN, method, token_width=2), state, PLAN[0][0], Scripted()
    )
    assert [update.client for update in report.updates] == sorted(u.client for u in report.updates)
    total = sum(update.samples for update in report.updates)
    want = sum(u.adapters["0"]["a"] * u.samples for u in report.updates) / total
    torch.testing.assert_close(after.adapters["0"]["a"], want)


@pytest.mark.parametrize("shuffle", range(1, 6))
def test_the_order_of_replies_does_not_change_a_bit(shuffle: int, whole) -> None:
    _, ledger, final = whole
    other = Ledger()
    assert same(go(Scripted(shuffle), other), final)
    for mine, theirs in zip(ledger.rounds, other.rounds, strict=True):
        assert [u.client for u in mine.updates] == [u.client for u in theirs.updates]
        assert [i.client for i in mine.identities] == [i.client for i in theirs.identities]


@pytest.mark.parametrize("place", range(len(EVERY)), ids=[str(one) for one in EVERY])
def test_going_on_from_every_commit_ends_in_the_same_bits(place: int, whole) -> None:
    engine, ledger, final = whole
    position, state = ledger.commits[place]
    again, anew = Scripted(shuffle=place), Ledger()
    assert same(go(again, anew, state, position), final)
    passed = 2 * sum(not one.ended for one in EVERY[: place + 1])
    assert again.calls == engine.calls[passed:]
    left = ledger.commits[place:] if position.ended else ledger.commits[place + 1 :]
    assert [one for one, _ in anew.commits] == [one for one, _ in left]
    assert all(same(a, b) for (_, a), (_, b) in zip(anew.commits, left, strict=True))


def test_a_stage_that_was_ended_is_handed_out_again_as_it_was(whole) -> None:
    """Its evaluation may be unfinished; it must not end, or begin, twice."""
    final = whole[2]
    engine, anew = Scripted(), Ledger()
    assert same(go(engine, anew, final, Position(1, 2, True)), final)
    assert anew.stages == [Position(1, 2, True)]
    assert not engine.calls
    assert final.extras["begun"]["n"] == 2 == final.extras["ended"]["n"]


def test_a_setting_without_stages_is_left_at_once() -> None:
    engine, ledger = Scripted(), Ledger()
    state = Stepping().start(BLANK, {"w": torch.zeros(7)})
    empty = replace(SETTING, stages=())
    last = ledger.follow(FederatedRun(empty, [], Stepping(), token_width=2), state, engine)
    assert same(last, state)
    assert not engine.calls
    assert not ledger.commits
