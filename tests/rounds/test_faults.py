"""Every kind of bad reply beside every kind of method: named, put aside, never averaged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from fcit.aggregation.averaging import product_mean
from fcit.aggregation.packing import pack_message, unpack_message
from fcit.aggregation.privacy import Privacy
from fcit.methods import find
from fcit.methods.base import Method
from fcit.methods.disco import Disco
from fcit.optimizers import Optimizer
from fcit.optimizers.fedavgm import Fedavgm
from fcit.optimizers.scaffold import Scaffold
from fcit.rounds.acceptance import Reply
from fcit.rounds.federation import Federation
from fcit.rounds.journal import InMemory, RunJournal
from fcit.rounds.server import FederatedRun, Round, federate, take_round
from fcit.seeds import torch_stream
from fcit.types import (
    Fault,
    FcitError,
    Identity,
    Job,
    Setting,
    Stage,
    State,
    Task,
    Turn,
    Update,
    Weights,
)
from fcit.weights import flatten, load, mean

TASK = Task("red", ("red",))
TURNS = [Turn(client, TASK, 0, 0, True) for client in (1, 4, 6, 7)]
BAD = 4
PATH = "base_model.model.layers.0.mlp.up_proj"
BLANK = {f"{PATH}.lora_A.weight": torch.ones(2, 6), f"{PATH}.lora_B.weight": torch.zeros(5, 2)}
EVERYBODY, RULES = Federation(), Federation(min_clients=2)
METHODS = ["finetune", "disco", "olora", "ewc", "moelora", "hide"]
Spoil = Callable[[Update], list[Update | Fault]]


@dataclass
class Crowd:
    """Clients that send what is expected, changed a little; `spoil` stands between BAD and the server."""

    method: Method
    spoil: Spoil = lambda update: [update]
    spoil_token: Callable[[Identity], list[Identity | Fault]] = lambda one: [one]
    trained: list[int] = field(default_factory=list)

    def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
        for turn in turns:
            one = Identity(turn.client, turn.task.name, torch.tensor([1.0, 0.1, 1.0, 0.1]), 3)
            yield from self.spoil_token(one) if turn.client == BAD else [one]

    def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
        for job in jobs:
            self.trained.append(job.turn.client)
            update = honest(self.method, job)
            yield from self.spoil(update) if job.turn.client == BAD else [update]


def honest(method: Method, job: Job) -> Update:
    noise = torch_stream(0, "test", job.turn.client)
    expected = method.expects(job.received)

    def moved(parts: dict[str, Weights]) -> dict[str, Weights]:
        return {
            name: {k: v + 0.1 * torch.randn(v.shape, generator=noise) for k, v in part.items()}
            for name, part in parts.items()
        }

    extras = moved(expected.extras)
    for name in extras.keys() - job.received.extras.keys():  # statistics: means of squares
        extras[name] = {key: value.square() for key, value in extras[name].items()}
    return Update(job.turn.client, 10, moved(expected.adapters), extras, {"loss": 1.0})


def changed(update: Update, change: Callable[[torch.Tensor], torch.Tensor]) -> Update:
    """An update with one tensor of its projector changed (all methods here send one)."""
    part = {key: change(value) for key, value in update.extras["projector"].items()}
    return replace(update, extras={**update.extras, "projector": part})


def poisoned(update: Update, value: float) -> Update:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor

    return changed(update, change)


def without(update: Update) -> Update:
    return replace(update, extras={**update.extras, "projector": {}})


def other_recipe(update: Update) -> Update:
    return replace(update, extras={**update.extras, "pool": {"key": torch.ones(2)}})


SPOILT: dict[str, tuple[str, Spoil]] = {
    "crashes": ("crash", lambda _: [Fault(BAD, "crash", "its process ended")]),
    "hangs past the deadline": ("timeout", lambda _: [Fault(BAD, "timeout", "no reply")]),
    "cannot be decoded": ("garbled", lambda _: [Fault(BAD, "garbled", "not safetensors")]),
    "answers late": ("late", lambda _: [Fault(BAD, "late", "a reply to round 1")]),
    "says nothing": ("silent", lambda _: []),
    "sends NaN": ("nonfinite", lambda one: [poisoned(one, float("nan"))]),
    "sends infinity": ("nonfinite", lambda one: [poisoned(one, float("inf"))]),
    "has a loss beyond all floats": (
        "nonfinite",
        lambda one: [replace(one, metrics={"loss": 10**400})],
    ),
    "has a loss that is no number": (
        "nonfinite",
        lambda one: [replace(one, metrics={"loss": float("nan")})],
    ),
    "sends a wrong shape": ("shape", lambda one: [changed(one, lambda t: t[:-1])]),
    "sends another type": ("dtype", lambda one: [changed(one, lambda t: t.double())]),
    "sends another recipe's keys": ("keys", lambda one: [other_recipe(one)]),
    "leaves a tensor out": ("keys", lambda one: [without(one)]),
    "sends an optimizer's tensors": (
        "keys",
        lambda one: [replace(one, optimizer={"projector": {"0": torch.ones(1)}})],
    ),
    "sends a huge norm": ("norm", lambda one: [changed(one, lambda t: t * 1e9)]),
    "overflows": ("norm", lambda one: [changed(one, lambda t: t * 0 + 3e38)]),
    "has no metrics": ("garbled", lambda one: [replace(one, metrics=[])]),
    "sends eight bits": ("dtype", lambda one: [float8(one)]),
    "remembers NaN": (
        "nonfinite",
        lambda one: [replace(one, memory={"c": torch.tensor([float("nan")])})],
    ),
    "says it has no samples": ("samples", lambda one: [replace(one, samples=0)]),
    "says it has too many samples": ("samples", lambda one: [replace(one, samples=10**15)]),
    "says it has a million times the others' samples": (
        "samples",
        lambda one: [replace(one, samples=10**7)],
    ),
    "says it has half a sample": ("samples", lambda one: [replace(one, samples=0.5)]),
    "has a loss that is a word": (
        "nonfinite",
        lambda one: [replace(one, metrics={"loss": True})],
    ),
    "has a loss whose sum overflows": (
        "nonfinite",
        lambda one: [replace(one, metrics={"loss": 1e308})],
    ),
}


def begun(method: Method) -> State:
    state = method.start(BLANK, {"w": torch.zeros(7)}, 0)
    return method.begin(state, Stage((TASK,)))


def one_round(
    method: Method, rules: Federation = EVERYBODY, optimizer: Optimizer | None = None
) -> FederatedRun:
    setting = Setting("one round", (Stage((TASK,)),), 8, 4, 1)
    width = method.token_width(4)
    return FederatedRun(
        setting, [[TURNS]], method, optimizer or Optimizer(), rules, token_width=width
    )


def go(
    name: str,
    turns: Sequence[Turn] = TURNS,
    journal: RunJournal | InMemory | None = None,
    optimizer: Optimizer | None = None,
    rules: Federation = RULES,
    **spoils,
) -> tuple[State, Round]:
    method = find(name)(**({"rank": 2} if name != "moelora" else {"rank": 2, "experts": 2}))
    crowd = Crowd(method, **spoils)
    run = one_round(method, rules, optimizer)
    return take_round(run, begun(method), turns, crowd, journal)


def same(a: State, b: State) -> bool:
    one, other = flatten(a), flatten(b)
    return one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("what", SPOILT)
def test_a_bad_client_is_named_put_aside_and_not_averaged(
    what: str, name: str, tmp_path: Path
) -> None:
    kind, spoil = SPOILT[what]
    journal = RunJournal(tmp_path)
    after, report = go(name, journal=journal, spoil=spoil)
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, kind)]
    assert [update.client for update in report.updates] == [1, 6, 7]
    assert [job.turn.client for job in report.jobs] == [1, 6, 7]
    assert len(report.bytes_up) == len(report.bytes_down) == 3
    sound = flatten(after)
    assert all(value.isfinite().all() for value in sound.values())
    others, _ = go(name, [turn for turn in TURNS if turn.client != BAD])
    trained = {key for key in flatten(others) if key.startswith("adapters/") or "projector" in key}
    assert all(sound[key].equal(flatten(others)[key]) for key in trained)
    aside = [path.name for path in tmp_path.glob("quarantine/*")]
    sent_nothing = (
        kind in ("crash", "timeout", "garbled", "late", "silent") and what != "has no metrics"
    )
    assert aside == ([] if sent_nothing else [f"1-1-client{BAD}-{kind}.safetensors"])


def test_memories_of_a_round_taken_up_again_are_checked_before_anybody_is_asked(
    tmp_path: Path,
) -> None:
    heard: list[dict[int, Weights]] = []
    one = RunJournal(tmp_path)
    one.begin(0, 1)
    block = {"0": {"a": torch.ones(2)}}
    update = Update(3, 5, block, {}, {"loss": 1.0}, memory={"turn": torch.tensor([0, 1])})
    one.keep(Reply(update, 8, 1.0, {}))
    RunJournal(tmp_path, heard.append).begin(0, 1)
    assert heard[0][3]["turn"].tolist() == [0, 1]


@pytest.mark.parametrize("name", METHODS)
def test_of_two_answers_the_first_counts(name: str, tmp_path: Path) -> None:
    whole, _ = go(name)
    twice, report = go(
        name,
        journal=RunJournal(tmp_path),
        spoil=lambda one: [one, changed(one, lambda tensor: tensor + 1)],
    )
    assert same(twice, whole)
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, "duplicate")]
    assert len(report.updates) == 4
    assert len(list(tmp_path.glob("quarantine/*"))) == 1


def test_an_update_of_a_client_that_was_not_asked_is_no_update() -> None:
    whole, _ = go("finetune")
    after, report = go("finetune", spoil=lambda one: [one, replace(one, client=99)])
    assert same(after, whole)
    assert [(fault.client, fault.kind) for fault in report.faults] == [(99, "stranger")]


TOKENS = {
    "sends NaN": ("nonfinite", lambda one: [replace(one, token=one.token * float("nan"))]),
    "sends zeros": ("nonfinite", lambda one: [replace(one, token=one.token * 0)]),
    "is too long": ("shape", lambda one: [replace(one, token=torch.ones(9))]),
    "is of two words": ("dtype", lambda one: [replace(one, token=one.token.double())]),
    "is of eight bits": (
        "dtype",
        lambda one: [replace(one, token=one.token.to(torch.float8_e4m3fn))],
    ),
    "is no tensor": ("garbled", lambda one: [replace(one, token=[1.0])]),
    "has no row": ("shape", lambda one: [replace(one, token=torch.ones(2, 2))]),
    "has no samples": ("samples", lambda one: [replace(one, samples=-3)]),
    "says True": ("samples", lambda one: [replace(one, samples=True)]),
    "outweighs the others": ("samples", lambda one: [replace(one, samples=2**31 - 1)]),
    "outweighs them by its length": (
        "norm",
        lambda one: [replace(one, token=one.token * 1e30, samples=2**31 - 1)],
    ),
    "is ten thousand times as long": ("norm", lambda one: [replace(one, token=one.token * 1e4)]),
    "is next to nothing": ("norm", lambda one: [replace(one, token=one.token * 1e-20)]),
    "is of another task": ("stranger", lambda one: [replace(one, task="blue")]),
    "does not come": ("silent", lambda _: []),
    "crashes": ("crash", lambda _: [Fault(BAD, "crash", "gone")]),
}


@pytest.mark.parametrize("name", ["disco", "hide"])
@pytest.mark.parametrize("what", TOKENS)
def test_a_bad_token_leaves_its_client_out_of_the_round(what: str, name: str) -> None:
    kind, spoil = TOKENS[what]
    after, report = go(name, spoil_token=spoil)
    others, _ = go(name, [turn for turn in TURNS if turn.client != BAD])
    assert same(after, others)
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, kind)]


def test_a_round_without_a_quorum_ends_in_one_line_that_names_the_client() -> None:
    with pytest.raises(FcitError, match=r"stage 1, round 1: 3 of 4 .* client 4 \(crash") as error:
        go("finetune", rules=Federation(), spoil=SPOILT["crashes"][1])
    assert "min_clients" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_fault_of_a_client_that_was_not_asked_for_a_token_keeps_nobody_out() -> None:
    method = find("disco")(rank=2)
    state, _ = take_round(one_round(method), begun(method), TURNS, Crowd(method))
    crowd = Crowd(method, spoil=lambda one: [Fault(BAD, "late", "of the round before"), one])
    later = [replace(turn, round=1) for turn in TURNS]
    _, report = take_round(one_round(method), state, later, crowd)
    assert len(report.updates) == 4
    assert [fault.kind for fault in report.faults] == ["late"]


def test_control_variates_unlike_the_others_are_a_fault() -> None:
    def with_variate(update: Update, length: int) -> Update:
        return replace(update, optimizer={"adapters.0": {"0000": torch.ones(length)}})

    method = find("finetune")(rank=2, projector="frozen")

    class Controlled(Crowd):
        def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
            for job in jobs:
                yield with_variate(honest(method, job), 3 if job.turn.client == BAD else 2)

    state = begun(method)
    run = one_round(method, Federation(min_clients=1), Scaffold())
    _, report = take_round(run, state, TURNS, Controlled(method))
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, "shape")]


@pytest.mark.parametrize("wire", ["bfloat16", "int8"])
def test_packed_jobs_of_two_fresh_subspaces_keep_their_names(wire: str) -> None:
    """Both are the same blank tensors."""
    method = find("disco")(rank=2)

    def other(one: Identity) -> list[Identity | Fault]:
        return [replace(one, token=-one.token)]

    crowd = Crowd(method, spoil_token=other)
    run = one_round(method, Federation(wire=wire))  # type: ignore[arg-type]
    after, report = take_round(run, begun(method), TURNS, crowd)
    assert not report.faults
    assert sorted(after.adapters) == ["0", "1"]
    assert [list(job.received.adapters) for job in report.jobs] == [["0"], ["1"], ["0"], ["0"]]


@pytest.mark.parametrize("name", METHODS)
def test_a_journal_changes_no_bit_and_spares_whoever_has_answered(
    name: str, tmp_path: Path
) -> None:
    whole, _ = go(name)
    after, report = go(name, journal=RunJournal(tmp_path))
    assert same(after, whole)
    assert [update.client for update in report.updates] == [1, 4, 6, 7]
    (tmp_path / "journal" / "6.safetensors").unlink()
    (tmp_path / "journal" / "7.safetensors").write_bytes(b"half a fi")
    method = find(name)(**({"rank": 2} if name != "moelora" else {"rank": 2, "experts": 2}))
    crowd = Crowd(method, spoil_token=SPOILT["says nothing"][1])
    again, _ = take_round(one_round(method), begun(method), TURNS, crowd, RunJournal(tmp_path))
    assert same(again, whole)
    assert crowd.trained == [6, 7]


@pytest.mark.parametrize("where", ["a tensor", "the note"])
def test_a_journal_file_that_is_not_as_it_was_written_is_not_believed(
    where: str, tmp_path: Path
) -> None:
    whole, _ = go("disco", journal=RunJournal(tmp_path))
    path = tmp_path / "journal" / "6.safetensors"
    data = path.read_bytes()
    path.write_bytes(
        data[:-1] + bytes([data[-1] ^ 1])
        if where == "a tensor"
        else data.replace(b'\\"samples\\": 10', b'\\"samples\\": 90')
    )
    assert path.read_bytes() != data
    method = find("disco")(rank=2)
    crowd = Crowd(method)
    again, _ = take_round(one_round(method), begun(method), TURNS, crowd, RunJournal(tmp_path))
    assert crowd.trained == [6]
    assert same(again, whole)


def test_a_journal_of_another_identity_encoder_is_not_gone_on_with(tmp_path: Path) -> None:
    """Its first tokens would set a width in which no later token comes."""
    go("disco", journal=RunJournal(tmp_path))
    method = find("disco")(rank=2)
    run = replace(one_round(method), token_width=5)
    with pytest.raises(FcitError, match="its tokens have 5 numbers, and those that this run has"):
        take_round(run, begun(method), TURNS, Crowd(method), RunJournal(tmp_path))


def remembering(update: Update) -> Update:
    return replace(update, memory={"kept": torch.arange(3.0)})


def test_a_journal_forgets_other_rounds_and_keeps_what_clients_remember(tmp_path: Path) -> None:
    go("disco", journal=RunJournal(tmp_path), spoil=lambda one: [remembering(one)])
    journal = RunJournal(tmp_path)
    journal.begin(0, 0)
    assert sorted(journal.kept) == [1, 4, 6, 7]
    (who,) = journal.memories()
    assert who == BAD
    assert journal.memories()[BAD]["kept"].tolist() == [0, 1, 2]
    assert [identity.client for identity in journal.known[0]] == [1, 4, 6, 7]
    journal.begin(0, 1)
    assert not journal.kept
    assert not list((tmp_path / "journal").iterdir())


@pytest.mark.parametrize("what", ["sends NaN", "sends a huge norm"])
def test_a_reply_that_was_put_aside_changes_no_memory(what: str, tmp_path: Path) -> None:
    journal = RunJournal(tmp_path)
    spoil = SPOILT[what][1]
    _, report = go("disco", journal=journal, spoil=lambda one: spoil(remembering(one)))
    assert [fault.client for fault in report.faults] == [BAD]
    assert not journal.memories()


def test_an_empty_memory_takes_the_place_of_another(tmp_path: Path) -> None:
    journal = RunJournal(tmp_path)
    go("disco", journal=journal, spoil=lambda one: [replace(one, memory={})])
    assert journal.memories() == {BAD: {}}


def float8(update: Update) -> Update:
    return changed(update, lambda tensor: tensor.to(torch.float8_e4m3fn))


@pytest.mark.parametrize("wire", ["bfloat16", "int8"])
def test_a_packed_update_of_an_odd_type_is_a_fault(wire: str) -> None:
    method = find("finetune")(rank=2)

    class Packing(Crowd):
        def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
            for job in jobs:
                received = unpack_message(job.received, wire, State())
                one = honest(method, replace(job, received=received))
                one = pack_message(one, wire, torch_stream(0, "wire", job.turn.client), received)
                yield float8(one) if job.turn.client == BAD else one

    run = one_round(method, Federation(min_clients=2, wire=wire))  # type: ignore[arg-type]
    _, report = take_round(run, begun(method), TURNS, Packing(method))
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, "dtype")]


def scaffolded(spoil: Spoil, wire: str = "float32") -> tuple[State, Round]:
    method = find("finetune")(rank=2, projector="frozen")

    class Controlled(Crowd):
        def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
            for job in jobs:
                one = replace(
                    honest(method, job), optimizer={"adapters.0": {"0000": torch.ones(2)}}
                )
                yield from spoil(one) if job.turn.client == BAD else [one]

    run = one_round(method, Federation(min_clients=1), Scaffold())
    return take_round(run, begun(method), TURNS, Controlled(method))


def variates(update: Update, value: torch.Tensor) -> list[Update | Fault]:
    return [replace(update, optimizer={"adapters.0": {"0000": value}})]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (torch.full((2,), 1e37), "norm"),
        (torch.ones(2).to(torch.float8_e5m2), "dtype"),
        (torch.tensor([1.0, float("nan")]), "nonfinite"),
    ],
)
def test_an_optimizers_odd_tensors_are_a_fault(value: torch.Tensor, kind: str) -> None:
    after, report = scaffolded(lambda one: variates(one, value))
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, kind)]
    assert after.optimizer["variate.adapters.0"]["0000"].tolist() == [1.0, 1.0]


def test_huge_statistics_are_a_fault_though_the_change_is_small(tmp_path: Path) -> None:
    def boasting(one: Update) -> list[Update | Fault]:
        fisher = {key: torch.full_like(v, 1e37) for key, v in one.extras["fisher-measured"].items()}
        return [replace(one, extras={**one.extras, "fisher-measured": fisher})]

    journal = RunJournal(tmp_path)
    _, report = go("ewc", journal=journal, spoil=boasting)
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, "norm")]
    assert report.faults[0].detail.startswith("its statistics: ")
    again = RunJournal(tmp_path)
    again.begin(0, 0)
    assert set(again.kept[1].spread) == {"samples", "change", "statistics"}


@pytest.mark.parametrize(("times", "faulty"), [(2e4, False), (2e6, True)])
def test_fisher_information_may_differ_by_the_square(times: float, faulty: bool) -> None:
    def larger(one: Update) -> list[Update | Fault]:
        fisher = {key: times * value for key, value in one.extras["fisher-measured"].items()}
        return [replace(one, extras={**one.extras, "fisher-measured": fisher})]

    _, report = go("ewc", spoil=larger)
    assert bool(report.faults) == faulty


def test_large_statistics_do_not_hide_a_large_change() -> None:
    """Also where they answer a request of their own name: fedprotip's sketches."""
    method = find("fedprotip")(rank=2)

    class Large(Crowd):
        def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
            for one in super().run(jobs):
                assert isinstance(one, Update)
                times = 1e5 if one.client == BAD else 1.0
                block = {key: times * value for key, value in one.adapters["0"].items()}
                sketch = {key: 1e4 * value for key, value in one.extras["sketch"].items()}
                extras = {**one.extras, "sketch": sketch}
                yield replace(one, adapters={"0": block}, extras=extras)

    run = one_round(method, Federation(min_clients=3))
    _, report = take_round(run, begun(method), TURNS, Large(method))
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, "norm")]
    assert report.faults[0].detail.startswith("its change: ")


def test_statistics_below_zero_are_a_fault() -> None:
    def negative(one: Update) -> list[Update | Fault]:
        fisher = {key: -value for key, value in one.extras["fisher-measured"].items()}
        return [replace(one, extras={**one.extras, "fisher-measured": fisher})]

    _, report = go("ewc", spoil=negative)
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, "negative")]


@pytest.mark.parametrize("name", ["disco", "hide"])
def test_the_first_token_of_all_cannot_be_endless(name: str) -> None:
    """Nothing is there to compare it with."""
    huge = TOKENS["outweighs them by its length"][1]
    with pytest.raises(FcitError, match=r"client 4 \(norm: its token has norm 1.42e\+30"):
        go(name, [TURNS[1]], spoil_token=huge)


@pytest.mark.parametrize(
    ("times", "kind", "said"),
    [
        (0.5, "garbled", "no samples have its second moment: a variance is below zero"),
        (3e6, "norm", "its second moment: "),
    ],
)
def test_a_client_with_an_odd_second_moment_is_left_out(times: float, kind: str, said: str) -> None:
    """All questions would be routed by it."""
    method = Disco(rank=2, router="discriminant")

    class Samples(Crowd):
        def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
            for turn in turns:
                rows = torch.randn((6, 4), generator=torch.Generator().manual_seed(turn.client)) + 9
                token = method.make_token(rows)
                if turn.client == BAD:
                    token[4:] *= times
                yield Identity(turn.client, turn.task.name, token, 6)

    run = one_round(method, RULES)
    state, report = take_round(run, begun(method), TURNS, Samples(method))
    (fault,) = report.faults
    assert (fault.client, fault.kind) == (BAD, kind) and fault.detail.startswith(said)
    assert method.tokens(state).shape == (1, 14)


@pytest.mark.parametrize(
    ("sent", "counted"),
    [
        ([1500, 1, 1, 1], [1000, 1, 1, 1]),  # at most the outlier factor
        ([1, 1, 2 * 10**9, 2 * 10**9], [1, 1, 1000, 1000]),  # two agree on a lie
        (
            [1, 900, 2 * 10**9, 800],
            [1, 900, 800],
        ),  # most do not hide: the median says what is too large
    ],
)
def test_tokens_that_count_one_sample_do_not_reject_those_that_count_all(
    sent: list[int], counted: list[int]
) -> None:
    """A client that hides its token says that it has one sample (`privacy.hide_token`)."""
    method = Disco(rank=2)

    class Hidden(Crowd):
        def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
            for at, turn in enumerate(turns):
                token = torch.tensor([1.0, 0.1, 1.0, 0.1])
                yield Identity(turn.client, turn.task.name, token, sent[at])

    rules = replace(RULES, min_clients=1)
    _, report = take_round(one_round(method, rules), begun(method), TURNS, Hidden(method))
    assert [fault.kind for fault in report.faults] == ["samples"] * (4 - len(counted))
    assert [identity.samples for identity in report.identities] == counted


@pytest.mark.parametrize("others", [1, 3])
@pytest.mark.parametrize("name", ["finetune", "disco", "hide"])
def test_sample_counts_are_compared_only_where_they_are_the_clients_word(
    name: str, others: int
) -> None:
    """Shares that the server dealt may be very unequal (a small beta), and it knows their sizes."""

    class Unequal(Crowd):
        def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
            for one in super().identify(turns):
                assert isinstance(one, Identity)
                yield replace(one, samples=5000 if one.client == BAD else others)

        def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
            for one in super().run(jobs):
                assert isinstance(one, Update)
                yield replace(one, samples=5000 if one.client == BAD else others)

    method = find(name)(rank=2)
    run = one_round(method, RULES)
    _, report = take_round(replace(run, dealt=True), begun(method), TURNS, Unequal(method))
    assert not report.faults
    sent = [*report.updates, *report.identities]
    assert {one.samples for one in sent if one.client == BAD} == {5000}
    _, report = take_round(run, begun(method), TURNS, Unequal(method))
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, "samples")]


def test_a_methods_own_check_that_fails_ends_no_round() -> None:
    """It is that client's fault, as with every other check of a reply."""

    class Picky(Disco):
        def token_fault(self, token: torch.Tensor) -> str:
            return "" if len(token) == 4 else str(1 / 0)

    method = Picky(rank=2)
    crowd = Crowd(method, spoil_token=lambda one: [replace(one, token=torch.ones(5))])
    state, report = take_round(one_round(method, RULES), begun(method), TURNS, crowd)
    assert [fault.client for fault in report.faults] == [BAD]
    assert method.tokens(state).shape == (1, 4)


@pytest.mark.parametrize("name", ["disco", "hide"])
@pytest.mark.parametrize("first", [TURNS[1:2], TURNS])
def test_the_first_tokens_of_all_are_as_wide_as_the_identity_encoders(
    name: str, first: list[Turn]
) -> None:
    """A client that comes first and alone does not set the width for those who come after it."""
    method = find(name)(rank=2)
    run = replace(one_round(method, RULES), token_width=5)
    said = "client 4 (shape: its token has 4 numbers, this run's tokens have 5)"
    with pytest.raises(FcitError, match=re.escape(said)):
        take_round(run, begun(method), first, Crowd(method))
    state, _ = take_round(replace(run, token_width=4), begun(method), first, Crowd(method))
    assert method.tokens(state).shape == (1, 4)
    later = [replace(turn, stage=1, task=Task("blue", ("blue",))) for turn in first]
    with pytest.raises(
        FcitError, match="its tokens have 5 numbers, and those that this run has have 4"
    ):
        take_round(
            replace(run, plan=[[], [later]]), method.begin(state, Stage(())), later, Crowd(method)
        )


def test_a_newcomers_token_is_compared_with_those_of_the_subspaces() -> None:
    method = find("disco")(rank=2)
    others = [turn for turn in TURNS if turn.client != BAD]
    state, _ = take_round(one_round(method), begun(method), others, Crowd(method))
    crowd = Crowd(method, spoil_token=lambda one: [replace(one, token=one.token * 1e5)])
    later = [replace(turn, round=1) for turn in TURNS]
    after, report = take_round(one_round(method, RULES), state, later, crowd)
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, "norm")]
    assert after.extras["identity"] == state.extras["identity"]


@dataclass(frozen=True)
class Overflowing(Disco):
    """Computes infinity at one of the places where a method computes something."""

    at: ClassVar[str] = ""

    def begin(self, state: State, stage: Stage) -> State:
        return self._reach("begin", super().begin(state, stage))

    def organise(self, state: State, identities: Sequence[Identity]) -> State:
        return self._reach("organise", super().organise(state, identities))

    def end(self, state: State, stage: Stage) -> State:
        return self._reach("end", super().end(state, stage))

    def _reach(self, place: str, state: State) -> State:
        infinite = {"x": {"x": torch.tensor([float("inf")])}} if self.at == place else {}
        return replace(state, extras=state.extras | infinite)


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ("begin", r"begin made numbers that are not finite \(x: x\)"),
        (
            "organise",
            r"stage 1, round 1: .* \(x: x\)\. Client 7 sent .* journal/tokens\.safetensors",
        ),
        ("end", r"end made numbers that are not finite \(x: x\)"),
    ],
)
def test_nothing_infinite_is_committed_wherever_it_comes_from(
    at: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Overflowing, "at", at)
    method = Overflowing(rank=2)

    class Louder(Crowd):
        """Client 7 sends the largest token and update."""

        def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
            for one in super().identify(turns):
                assert isinstance(one, Identity)
                yield replace(one, token=one.token * 5) if one.client == 7 else one

        def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
            for one in super().run(jobs):
                assert isinstance(one, Update)
                yield changed(one, lambda tensor: tensor + 5) if one.client == 7 else one

    state = method.start(BLANK, {"w": torch.zeros(7)}, 0)
    with pytest.raises(FcitError, match=told):
        next(federate(one_round(method), state, Louder(method)))


LATE = [Fault(BAD, "late", "a reply to round 0")]


@pytest.mark.parametrize("name", ["disco", "hide"])
def test_a_late_client_without_which_a_round_has_no_quorum_is_asked_again(
    name: str, tmp_path: Path
) -> None:
    whole, _ = go(name)
    journal = RunJournal(tmp_path)
    for _ in range(2):
        with pytest.raises(FcitError, match=r"3 of 4 .* client 4 \(late"):
            go(name, journal=journal, rules=EVERYBODY, spoil_token=lambda _: LATE)
    method = find(name)(rank=2)
    asked: list[int] = []

    class Mended(Crowd):
        def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
            asked.extend(turn.client for turn in turns)
            yield from super().identify(turns)

    after, report = take_round(one_round(method), begun(method), TURNS, Mended(method), journal)
    assert asked == [BAD]
    assert not report.faults
    assert same(after, whole)


def test_a_client_mended_after_another_broke_the_round_joins_it(tmp_path: Path) -> None:
    """Client 4's token was late, then client 6 crashed: both are asked again. 4 opens a subspace before
    that of 7, whose reply is for another subspace now."""

    class Two(Crowd):
        def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
            for one in super().identify(turns):
                away = isinstance(one, Identity) and one.client in (6, 7)
                yield replace(one, token=one.token * torch.tensor([1, 1, -1, 1])) if away else one

    class Broken(Two):
        def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
            for one in super().run(jobs):
                yield Fault(6, "crash", "gone") if one.client == 6 else one

    method = find("disco")(rank=2)
    turned = torch.tensor([-1, 1, 1, 1])

    def opening(one: Identity) -> list[Identity | Fault]:
        return [replace(one, token=one.token * turned)]

    whole, _ = take_round(one_round(method), begun(method), TURNS, Two(method, spoil_token=opening))
    assert len(whole.adapters) == 3
    run, journal = one_round(method, Federation(min_clients=3)), RunJournal(tmp_path)
    with pytest.raises(FcitError, match=r"client 4 \(late.*client 6 \(crash"):
        take_round(run, begun(method), TURNS, Broken(method, spoil_token=lambda _: LATE), journal)
    crowd = Two(method, spoil_token=opening)
    after, report = take_round(run, begun(method), TURNS, crowd, RunJournal(tmp_path))
    assert not report.faults
    assert crowd.trained == [4, 6, 7]
    assert same(after, whole)


def test_a_round_that_went_on_without_a_client_goes_on_without_it_when_resumed(
    tmp_path: Path,
) -> None:
    first, _ = go("disco", journal=RunJournal(tmp_path), spoil_token=lambda _: LATE)
    again, report = go("disco", journal=RunJournal(tmp_path))
    assert same(again, first)
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, "late")]


@pytest.mark.parametrize("optimizer", [Optimizer(), Fedavgm(0.5, 1.0)])
def test_with_privacy_a_cohort_without_a_reply_gets_its_noise_too(optimizer: Optimizer) -> None:
    method = find("disco")(rank=2)
    crowd = Crowd(method, SPOILT["crashes"][1], lambda one: [replace(one, token=-one.token)])
    run = one_round(method, Federation(min_clients=2, outlier_factor=0), optimizer)
    run = replace(run, privacy=Privacy(clip_norm=1.0, noise_multiplier=1.0))
    state = begun(method)
    after, report = take_round(run, state, TURNS, crowd)
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, "crash")]
    blank, (alone,) = state.extras["blank"], [after.adapters["1"]]
    noise = torch.cat([(alone[key] - blank[key]).flatten() for key in sorted(blank)])
    assert 0.6 < float(noise.std()) < 1.4
    assert after.extras["identity"]["samples"].tolist() == [3, 1]


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_clients_whole_change_is_clipped_also_where_a_round_is_resumed(
    noise: float, tmp_path: Path
) -> None:
    method = find("finetune")(rank=2)
    rules = Federation(outlier_factor=0)
    secret = Privacy(clip_norm=1.0, noise_multiplier=noise)

    def huge(update: Update) -> list[Update | Fault]:
        adapters = {
            name: {key: 1e4 * value for key, value in block.items()}
            for name, block in update.adapters.items()
        }
        return [replace(update, adapters=adapters)]

    run = replace(one_round(method, rules), privacy=secret)
    state = begun(method)
    after, _ = take_round(run, state, TURNS, Crowd(method, huge), journal := RunJournal(tmp_path))
    if not noise:
        small = replace(run, privacy=Privacy(clip_norm=1e9, noise_multiplier=0.0))
        assert distance(take_round(small, state, TURNS, Crowd(method, huge))[0], state) > 100
        assert distance(after, state) <= 1.0001  # the mean of four changes of at most 1
    journal.forget(6)
    again, report = take_round(run, state, TURNS, Crowd(method, huge), RunJournal(tmp_path))
    assert len(report.updates) == 4
    assert same(again, after)


def distance(after: State, before: State) -> float:
    """The norm of all that a round changed."""
    moved = [
        (value - old[name][key]).flatten()
        for parts, old in ((after.adapters, before.adapters), (after.extras, before.extras))
        for name, part in parts.items()
        for key, value in part.items()
    ]
    return float(torch.cat(moved).norm())


@pytest.mark.parametrize("optimizer", [Optimizer(), Fedavgm(0.0, 1.0)])
def test_the_products_average_reaches_the_state_and_the_optimizers_step(
    optimizer: Optimizer,
) -> None:
    method = find("finetune")(rank=2)
    rules = Federation(average="product")
    after, report = take_round(
        one_round(method, rules, optimizer), begun(method), TURNS, Crowd(method)
    )
    parts = [update.adapters["0"] for update in report.updates]
    counts = [update.samples for update in report.updates]
    wanted, plain = product_mean(parts, counts), mean(parts, counts)
    for key, value in after.adapters["0"].items():
        torch.testing.assert_close(value, wanted[key], atol=1e-5, rtol=1e-5)
    assert any((wanted[key] - plain[key]).abs().max() > 1e-3 for key in plain)


def test_the_median_of_a_round_reaches_the_state() -> None:
    method = find("finetune")(rank=2)
    rules = Federation(robust="median", outlier_factor=0)
    after, report = take_round(one_round(method, rules), begun(method), TURNS, Crowd(method))
    for key, value in after.adapters["0"].items():
        sent = torch.stack([update.adapters["0"][key] for update in report.updates]).sort(0).values
        torch.testing.assert_close(value, (sent[1] + sent[2]) / 2)  # of four


def test_an_average_that_is_not_finite_is_not_committed() -> None:
    method = find("finetune")(rank=2)

    class Exploding(Optimizer):
        def move(self, x, mean, slots):
            return mean / 0, {}

    told = (
        r"stage 1, round 1: the aggregate is not finite \(0: .*\)\. Client \d sent the largest numbers: "
        r"repair it, delete journal/\d\.safetensors"
    )
    with pytest.raises(FcitError, match=told):
        run = one_round(method, optimizer=Exploding())
        take_round(run, begun(method), TURNS, Crowd(method))


def test_a_token_past_the_cap_leaves_its_client_out_of_the_round(tmp_path: Path) -> None:
    method = find("disco")(rank=2, max_subspaces=1, at_limit="skip")
    crowd = Crowd(method, spoil_token=lambda one: [replace(one, token=-one.token)])
    run, journal = one_round(method, Federation(min_clients=3)), RunJournal(tmp_path)
    _, report = take_round(run, begun(method), TURNS, crowd, journal)
    assert [(fault.client, fault.kind) for fault in report.faults] == [(BAD, "unmatched")]
    assert crowd.trained == [1, 6, 7]
    said = r"client 4 \(unmatched: .*method.max_subspaces.*federation.min_clients=N"
    with pytest.raises(FcitError, match=said):
        take_round(one_round(method), begun(method), TURNS, crowd, journal)


def test_a_clients_words_are_one_line_that_can_be_printed() -> None:
    fault = Fault(1, "crash", "first\nsecond\t\x1b[31m\u202ered " + "x" * 5000 + " the end")
    assert fault.detail.startswith("first second [31m red xxx")
    assert fault.detail.endswith("x the end")
    assert len(fault.detail) <= 200
    assert fault.detail.isprintable()


def test_what_is_in_quarantine_can_be_looked_at(tmp_path: Path) -> None:
    go("finetune", journal=RunJournal(tmp_path), spoil=SPOILT["sends NaN"][1])
    (path,) = tmp_path.glob("quarantine/*")
    assert load(path)["extras/projector/w"].isnan().any()
