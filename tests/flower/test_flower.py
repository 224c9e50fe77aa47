"""The Flower engine and its clients, message by message: what is sent, and what comes of answers."""

from __future__ import annotations

import copy
import errno
import logging
import os
import re
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

import handmade
from fcit.aggregation.privacy import Privacy
from fcit.engines import node
from fcit.engines.node import LocalClient, load_memory, respond, save_memory
from fcit.files import locked
from fcit.flower import hush
from fcit.models.chat import Chat
from fcit.recipe.config import Config, to_table, validate
from fcit.recipe.sections import DataSection
from fcit.runs.engine import build, check_memory
from fcit.types import Fault, FcitError, Identity, Job, Score, State, Task, Turn, Update
from fcit.worker.cache import code
from fcit.worker.experiment import Experiment
from fcit.worker.model import ModelWorker, stronger

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fcit.engines import wire
from fcit.flower import nodes
from fcit.flower.apps import local_client, own_client, shorten_user_errors, wait_for_nodes
from fcit.flower.engine import DEFAULT_DEADLINE, LIFETIME, FlowerEngine
from fcit.flower.messages import pack, unpack
from fcit.flower.status import Status, finished, lines

TASK = Task("IconQA", ("IconQA",))
TURNS = [Turn(client, TASK, 0, 1) for client in (0, 1, 2)]


class FakeGrid:
    """Nodes 100, 101, ... of clients 0, 1, ...; `behave` answers an errand, or not (None)."""

    def __init__(self, clients: int, behave: Callable[[int, dict], Any]):
        self.up = {100 + client: "since 1" for client in range(clients)}
        self.behave, self.sent = behave, list[tuple[int, dict]]()
        self.answers: dict[str, Message] = {}
        self.polls = 0
        self.hello: dict[int, Any] = {}
        self.names = dict[int, str]()
        self.lives = set[float]()

    def get_nodes(self) -> list[SimpleNamespace]:
        self.polls += 1
        return [
            SimpleNamespace(node_id=k, last_activated_at=v, name=self.names.get(k, ""))
            for k, v in self.up.items()
        ]

    def push_messages(self, messages) -> list[str]:
        keys = []
        for message in messages:
            key = f"message {len(self.sent)}"
            message.metadata.__dict__["_message_id"] = key
            self.lives.add(message.metadata.ttl)
            client = message.metadata.dst_node_id - 100
            header, _ = unpack(message.content)
            self.sent.append((client, header))
            if header["do"] == "hello":
                honest = pack(hello(client), {})
                found = self.hello.get(message.metadata.dst_node_id, honest)
            else:
                found = self.behave(client, header)
            if found is not None:
                self.answers[key] = Message(found, reply_to=message)
            keys.append(key)
        return keys

    def pull_messages(self, ids) -> Iterator[Message]:
        return iter([self.answers.pop(key) for key in list(ids) if key in self.answers])

    def asked(self, what: str) -> list[int]:
        return [client for client, header in self.sent if header["do"] == what]


def version() -> str:
    import importlib.metadata

    return importlib.metadata.version("fcit")


def hello(client: int, **more: Any) -> dict[str, Any]:
    """What a client answers to the question who it is."""
    return {"client": client, "fcit": version(), "code": code()} | more


def update(client: int, kept: bool = False) -> RecordDict:
    weights = {"0": {"a": torch.full((2,), float(client), dtype=torch.bfloat16)}}
    header, tensors = wire.pack_update(Update(client, 5, weights, {}, {"loss": 1.0}), {})
    return pack(header | {"kept": kept}, tensors)


@pytest.fixture
def config(table: dict) -> Config:
    return validate(table)


@pytest.fixture
def engine(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr("fcit.flower.engine.PAUSE", (0.02, 0.1))

    def make(behave, clients: int = 3, **more: Any) -> FlowerEngine:
        grid: Any = FakeGrid(clients, behave)
        home: Any = MagicMock()
        return FlowerEngine(config, grid, home, tmp_path, **{"deadline": 0.4} | more)

    return make


def jobs() -> list[Job]:
    return [Job(turn, State({"0": {"a": torch.ones(2)}})) for turn in TURNS]


def rounds(one) -> list[Update | Fault]:
    """A round's replies; the engine is given the memories of those that count, as at a commit."""
    found = list(one.run(jobs()))
    one.memory |= {got.client: got.memory or {} for got in found if isinstance(got, Update)}
    return found


def test_every_client_gets_its_own_job_and_bf16_comes_back_as_it_was(engine) -> None:
    one = engine(lambda client, header: update(client, kept=client == 2))
    found = {got.client: got for got in rounds(one)}
    assert sorted(found) == [0, 1, 2]
    for client, got in found.items():
        assert isinstance(got, Update)
        assert got.adapters["0"]["a"].dtype == torch.bfloat16
        assert got.adapters["0"]["a"].tolist() == [client, client]
    for client, header in one.grid.sent[3:]:
        assert header["turn"]["client"] == client
        assert header["since"] is None
    assert [client for client, kept in one.memory.items() if kept] == [2]
    list(one.run(jobs()))
    assert [header["since"] for client, header in one.grid.sent[6:] if client == 2] == [[0, 1]]
    assert one.grid.asked("hello") == [0, 1, 2]


@pytest.mark.parametrize(("at_once", "most"), [(0, 3), (1, 1), (2, 2)])
def test_no_more_requests_are_on_their_way_than_allowed(at_once: int, most: int, engine) -> None:
    on_way = list[int]()

    def behave(client: int, header: dict) -> RecordDict:
        on_way.append(1 + len(one.grid.answers))  # answers that nobody has read yet
        return update(client)

    one = engine(behave, at_once=at_once)
    assert sorted(got.client for got in one.run(jobs())) == [0, 1, 2]
    assert max(on_way) == most


def test_a_look_that_took_long_does_not_keep_a_restarted_node_waiting(
    engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcit.flower.engine.REST", (10.0, 0.05))

    def behave(client: int, header: dict) -> RecordDict | None:
        if client == 1 and one.grid.up[101] == "since 1":
            one.grid.up[101] = "since 2"
            return None
        return update(client)

    one = engine(behave, deadline=1.0)
    look = one.nodes.update
    monkeypatch.setattr(one.nodes, "update", lambda: (time.sleep(0.2), look()))
    assert [type(got) for got in one.run(jobs())] == [Update] * 3


def test_a_request_that_waits_for_room_is_not_said_to_be_unconnected(engine) -> None:
    one = engine(lambda client, header: None if client == 0 else update(client), at_once=1)
    found = {got.client: got for got in one.run(jobs())}
    assert found[0].detail == "no answer in 0.4 s"
    assert found[2].detail == "its request was not sent in 0.4 s: too many are on their way"


def test_tokens_come_back_by_client(engine) -> None:
    def behave(client: int, header: dict) -> RecordDict:
        return pack(*wire.pack_identity(Identity(client, "IconQA", torch.ones(3) * client, 7)))

    found = sorted(engine(behave).identify(TURNS), key=lambda one: one.client)
    assert [float(one.token[0]) for one in found] == [0, 1, 2]


def lying() -> RecordDict:
    """An update whose safetensors header gives a size beyond all integers of a tensor of no bytes."""
    head = b'{"adapters/0/a":{"dtype":"F32","shape":[9223372036854775808,0],"data_offsets":[0,0]}}'
    data = struct.pack("<Q", len(head)) + head
    records = update(1)
    records["body"] = ArrayRecord({"": Array("uint8", (len(data),), "safetensors", data)})
    return records


@pytest.mark.parametrize(
    ("answer", "kind", "detail"),
    [
        (Error(2, "boom"), "crash", "boom"),
        (pack({"error": "no samples"}, {}), "crash", "no samples"),
        (pack({"client": 1}, {}), "garbled", "samples"),
        (RecordDict(), "garbled", "not a message of fcit"),
        (update(2), "garbled", "as client 2"),
        (lying(), "garbled", "not a safetensors message"),
        (None, "timeout", "no answer in 0.4 s"),
    ],
)
def test_one_clients_fault_leaves_the_others_updates(
    answer, kind: str, detail: str, engine
) -> None:
    one = engine(lambda client, header: answer if client == 1 else update(client))
    found = {got.client: got for got in one.run(jobs())}
    assert isinstance(found[0], Update)
    assert isinstance(found[2], Update)
    fault = found[1]
    assert isinstance(fault, Fault)
    assert fault.kind == kind
    assert detail in fault.detail


def test_every_message_lives_by_the_rounds_deadline(engine) -> None:
    one = engine(lambda client, header: update(client), deadline=4.5)
    list(one.run(jobs()))
    list(one.identify(TURNS))
    list(one.score("IconQA", [1]))
    assert {header["do"] for _, header in one.grid.sent} == {"hello", "train", "identify", "score"}
    assert one.grid.lives == {LIFETIME * 4.5}


def test_a_client_that_never_connects_times_out(engine) -> None:
    one = engine(lambda client, header: update(client), clients=2)
    found = {got.client: got for got in one.run(jobs())}
    assert found[2] == Fault(2, "timeout", "the client is not connected")
    assert isinstance(found[0], Update)


def test_a_deadline_is_the_one_given_or_the_recipes_or_an_hour(
    table: dict, config: Config, tmp_path: Path
) -> None:
    changed = copy.deepcopy(table)
    changed["federation"]["deadline"] = 7
    recipe = validate(changed)
    grid: Any = FakeGrid(1, lambda client, header: update(client))
    home: Any = MagicMock()
    assert FlowerEngine(recipe, grid, home, tmp_path, deadline=9).deadline == 9
    assert FlowerEngine(recipe, grid, home, tmp_path).deadline == 7
    assert FlowerEngine(config, grid, home, tmp_path).deadline == DEFAULT_DEADLINE


def test_an_answer_after_the_deadline_is_late_and_not_taken(engine) -> None:
    one = engine(lambda client, header: None if client == 1 else update(client))
    list(one.run(jobs()))
    key = next(iter(one.overdue))
    to = Message(update(1), 101, "train")
    to.metadata.__dict__["_message_id"] = key
    one.grid.answers[key] = Message(update(1, kept=True), reply_to=to)
    one.grid.behave = lambda client, header: update(client)
    found = rounds(one)
    assert [got for got in found if isinstance(got, Fault)] == [
        Fault(1, "late", "an answer to an earlier turn came after its deadline")
    ]
    assert len(found) == 4
    assert not one.memory[1]


def test_a_restarted_node_gets_its_job_again(engine) -> None:
    def behave(client: int, header: dict) -> RecordDict | None:
        if client == 1 and one.grid.up[101] == "since 1":
            one.grid.up[101] = "since 2"  # it dies with the job and comes back
            return None
        return update(client)

    one = engine(behave, deadline=60.0)
    found = list(one.run(jobs()))
    assert [type(got) for got in found] == [Update] * 3
    assert sorted(one.grid.asked("train")) == [0, 1, 1, 2]


def test_two_nodes_of_one_client_are_refused(engine) -> None:
    one = engine(lambda client, header: update(client))
    list(one.run(jobs()))
    one.nodes.clients = {0: 100, 1: 102}
    one.nodes.active_since = {100: "since 1", 102: "since 1"}
    with pytest.raises(FcitError, match="two nodes say they are client 1"):
        list(one.run(jobs()))


def test_a_node_cannot_be_another_client_than_the_one_its_key_is_registered_as(engine) -> None:
    one = engine(lambda client, header: update(client), clients=4)
    one.grid.names = {100 + client: f"client-{client}" for client in range(4)}
    del one.grid.up[101]  # client 1 is away, and client 3 says it is that
    one.grid.hello[103] = pack(hello(1), {})
    said = "a node says it is client 1, and its key is registered as client-3"
    with pytest.raises(FcitError, match=said):
        list(one.run(jobs()))
    one.nodes.needs_all = False
    one.nodes.active_since, one.nodes.clients = {}, {3: 103}  # it was taken for client 3 before
    found = {got.client: got for got in one.run(jobs())}
    assert found[1].kind == "timeout"
    assert f"the client is not connected; {said}; start it with its own number" in found[1].detail
    assert 3 not in one.grid.asked("train")
    assert 3 not in one.nodes.clients
    one.grid.up[101] = "since 2"
    assert [type(got) for got in one.run(jobs())] == [Update] * 3


def test_a_known_node_that_comes_back_with_another_fcit_gets_no_more_jobs(engine) -> None:
    one = engine(lambda client, header: update(client))
    one.nodes.needs_all = False
    assert [type(got) for got in one.run(jobs())] == [Update] * 3
    one.grid.up[101] = "since 2"
    one.grid.hello[101] = pack(hello(1, fcit="another"), {})
    found = {got.client: got for got in one.run(jobs())}
    assert one.grid.asked("train").count(1) == 1
    assert 1 not in one.nodes.clients
    assert found[1].kind == "timeout"
    assert "the client is not connected; client 1 has fcit another" in found[1].detail
    one.grid.up[101] = "since 3"
    del one.grid.hello[101]
    assert [type(got) for got in one.run(jobs())] == [Update] * 3


def test_a_node_that_came_up_again_gets_no_errand_until_it_has_said_who_it_is(engine) -> None:
    one = engine(lambda client, header: update(client))
    assert [type(got) for got in one.run(jobs())] == [Update] * 3
    one.grid.up[101] = "since 2"
    pull, polls = one.grid.pull_messages, one.grid.polls

    def silent(ids) -> Iterator[Message]:
        if one.grid.polls <= polls + 3:
            assert one.grid.asked("train").count(1) == 1
            return iter([])
        return pull(ids)

    one.grid.pull_messages = silent
    assert [type(got) for got in one.run(jobs())] == [Update] * 3
    assert one.grid.polls > polls + 3
    assert one.grid.asked("train").count(1) == 2


def test_a_node_that_is_gone_when_its_answer_is_read_is_held_to_its_name_too(engine) -> None:
    one = engine(lambda client, header: update(client))
    one.grid.names, pull = {101: "client-7"}, one.grid.pull_messages
    one.grid.pull_messages = lambda ids: []  # it has not answered yet
    one.nodes.update()
    one.grid.up, one.grid.pull_messages = {}, pull
    with pytest.raises(FcitError, match="its key is registered as client-7"):
        one.nodes.update()


def test_of_an_overdue_answer_that_will_never_come_nothing_is_said(engine) -> None:
    one = engine(lambda client, header: None if client == 1 else update(client))
    list(one.run(jobs()))
    key = next(iter(one.overdue))
    to = Message(update(1), 101, "train")
    to.metadata.__dict__["_message_id"] = key
    one.grid.answers[key] = Message(Error(5, "node unavailable"), reply_to=to)
    one.grid.behave = lambda client, header: update(client)
    assert [type(got) for got in one.run(jobs())] == [Update] * 3
    assert not one.overdue


def test_a_turn_that_leaves_no_memory_takes_the_earlier_one_away(engine) -> None:
    one = engine(lambda client, header: update(client, kept=True))
    rounds(one)
    one.grid.behave = lambda client, header: update(client, kept=False)
    rounds(one)
    rounds(one)
    trained = [header["since"] for _, header in one.grid.sent if header["do"] == "train"]
    assert trained == [None] * 3 + [[0, 1]] * 3 + [None] * 3


def test_a_clients_words_are_kept_to_one_short_line(engine) -> None:
    said = pack({"error": "line\n" * 10**5}, {})
    one = engine(lambda client, header: said if client == 1 else update(client))
    (fault,) = [got for got in one.run(jobs()) if isinstance(got, Fault)]
    assert fault.detail.startswith("line line")
    assert len(fault.detail) <= 200


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ({"total": 150.0, "count": 2}, ""),
        ({"total": "all", "count": 2}, "garbled"),
        ({"total": 150.0, "count": 2.0}, "garbled"),
        ({"total": 150.0}, "garbled"),
    ],
)
def test_scores_come_back_and_what_is_none_is_garbled(header: dict, kind: str, engine) -> None:
    about = {"client": 1, "dataset": "IconQA"}
    (found,) = engine(lambda *_: pack(about | header, {})).score("IconQA", [1])
    assert found == Score(1, "IconQA", 150.0, 2) if not kind else found.kind == kind


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (Error(2, "no module named fcit"), "a node did not say which client it is: no module"),
        (RecordDict(), "a node did not say which client it is"),
        (pack(hello("two"), {}), "a node says it is client 'two'"),  # type: ignore
        (
            pack(hello(1, fcit="another"), {}),
            "client 1 has fcit another, this server has .*same commit",
        ),
        (pack(hello(1, code="01234567"), {}), "client 1 runs other code of fcit .*same commit"),
        (pack({"client": 1, "fcit": version()}, {}), "client 1 runs other code of fcit"),
    ],
)
def test_a_node_that_talks_nonsense_stops_a_run_that_needs_everyone_and_no_other(
    said: Any, what: str, engine
) -> None:
    one = engine(lambda client, header: update(client))
    one.grid.hello[101] = said
    with pytest.raises(FcitError, match=what):
        list(one.run(jobs()))
    one.nodes.needs_all = False
    one.nodes.active_since, one.nodes.clients = {}, {}
    found = {got.client: got for got in one.run(jobs())}
    assert isinstance(found[0], Update)
    assert isinstance(found[2], Update)
    assert found[1].kind == "timeout"
    assert "the client is not connected; " in found[1].detail


def test_a_node_that_goes_while_it_is_asked_who_it_is_is_asked_again(engine) -> None:
    one = engine(lambda client, header: update(client))
    one.grid.hello[101] = Error(5, "node unavailable")
    one.nodes.update()
    del one.grid.hello[101]
    one.grid.up[101] = "since 2"
    assert [type(got) for got in one.run(jobs())] == [Update] * 3


# -- a client's side ---------------------------------------------------------------------------------


def test_a_client_keeps_the_memory_it_began_from_and_the_one_it_made(tmp_path: Path) -> None:
    ones, twos = {"a": torch.ones(1)}, {"a": torch.ones(1) * 2}
    assert load_memory(tmp_path, None) == {}
    assert save_memory(tmp_path, None, (0, 0), ones)
    assert save_memory(tmp_path, (0, 0), (0, 3), twos)
    assert float(load_memory(tmp_path, (0, 0))["a"]) == 1
    assert save_memory(tmp_path, (0, 0), (0, 4), twos)  # the server never committed round 3
    kept = sorted(tmp_path.iterdir())
    assert [file.name.rpartition("-")[0] for file in kept] == ["stage0-round0", "stage0-round4"]
    data = bytearray(kept[1].read_bytes())
    data[-1] ^= 1
    kept[1].write_bytes(data)
    with pytest.raises(FcitError, match=f"{kept[1].name}: was changed"):
        load_memory(tmp_path, (0, 4))
    assert not save_memory(tmp_path, None, (1, 0), {})
    with pytest.raises(FcitError, match="memory is missing"):
        load_memory(tmp_path, (0, 4))


def test_a_client_with_its_own_data_says_nothing_of_its_files(
    table: dict, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    ask = wire.ask_identity(Turn(3, TASK, 0, 0))[1] | {"config": table}
    client = LocalClient(3, tmp_path / "memory", DataSection(root=str(tmp_path)))
    header, tensors = respond(ask, {}, client)
    assert header == {"error": "FcitError; see the client's own log"}
    assert not tensors
    assert "has no training samples of IconQA" in capfd.readouterr().err


@pytest.mark.parametrize(
    "run", ["../../precious", "/etc", "a/b", "..", ".", "", ".hidden", "a\\b", "a\0b"]
)
def test_a_server_can_neither_write_nor_delete_outside_a_clients_memory(
    run: str, table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "precious" / "client-3"
    precious.mkdir(parents=True)
    (precious / "mine.safetensors").write_bytes(b"kept")
    client = LocalClient(3, tmp_path / "clients" / "memory", DataSection(root=str(tmp_path)))
    monkeypatch.setattr(node, "_model_worker", never)
    header, _ = wire.pack_job(replace(jobs()[0], turn=Turn(3, TASK, 0, 0)), {})
    reply, _ = respond(header | {"run": run, "since": None, "config": table}, {}, client)
    assert reply == {"error": "FcitError; see the client's own log"}
    assert (precious / "mine.safetensors").read_bytes() == b"kept"
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_clients_memory_is_for_its_owner_alone_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Update(3, 5, {"0": {"a": torch.ones(1)}}, {}, {"loss": 1.0})
    worker = SimpleNamespace(train=lambda job, memory: (trained, {"drift": torch.ones(1)}))
    header, _ = wire.pack_job(replace(jobs()[0], turn=Turn(3, TASK, 0, 0)), {})
    umask = os.umask(0o000)
    try:
        client = LocalClient(3, tmp_path / "memory")
        reply, _ = respond(header | {"run": "a", "since": None}, {}, client, worker)  # type: ignore
    finally:
        os.umask(umask)
    assert reply["kept"]
    written = [tmp_path / "memory", *(tmp_path / "memory").rglob("*")]
    assert [path.name[:13] for path in written[1:]] == ["a", "client-3", "stage0-round0"]
    assert not any(path.stat().st_mode & 0o077 for path in written)


def never(*_: object):
    raise AssertionError("a worker was made")


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "../IconQA"},
        {"turn": {"client": 3, "stage": "../0", "round": 0}},
        {"turn": {"client": 3, "task": {"name": "x", "datasets": ["IconQA", "../../etc"]}}},
        {"since": ["../0", 0]},
        {"turn": {"client": 2}},
    ],
)
def test_every_name_in_a_servers_message_is_one_plain_name(
    change: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(node, "_model_worker", never)
    client = LocalClient(3, tmp_path, DataSection(root=str(tmp_path)))
    reply, _ = respond({"do": "train", "run": "a", "config": {}} | change, {}, client)
    assert reply == {"error": "FcitError; see the client's own log"}
    said = capsys.readouterr().err
    assert "must be one plain name" in said or "a turn of client 2 came to client 3" in said


def test_a_client_says_at_once_whether_it_has_what_all_stages_ask_it_for(
    table: dict, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """FigureQA is the second stage's."""
    every = copy.deepcopy(table)
    every["federation"]["per_round"] = 4
    asked = {"do": "hello", "run": "a", "config": every}
    ready = LocalClient(1, tmp_path, DataSection(root=str(suite)))
    assert respond(asked, {}, ready)[0] == hello(1)
    (tmp_path / "instructions").mkdir()
    (tmp_path / "instructions" / "IconQA").symlink_to(suite / "instructions" / "IconQA")
    (tmp_path / "datasets").symlink_to(suite / "datasets")
    lacking = LocalClient(1, tmp_path, DataSection(root=str(tmp_path)))
    assert respond(asked, {}, lacking)[0]["unready"] == "FcitError; see the client's own log"
    assert "has no training samples of FigureQA" in capsys.readouterr().err


def test_a_clients_own_log_says_of_how_many_samples_an_end_is_cut_off(
    table: dict,
    suite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(Chat, "cuts_off", lambda self, sample, image: sample.dataset == "FigureQA")
    every = copy.deepcopy(table)
    every["federation"]["per_round"] = 4
    asked = {"do": "hello", "run": "a", "config": every}
    client = LocalClient(1, tmp_path, DataSection(root=str(suite)))
    assert respond(asked, {}, client)[0] == hello(1)  # the server learns nothing of it
    said = capsys.readouterr().err
    assert re.search(
        r"cuts off the end of an answer of [1-9]\d* of [1-9]\d* training samples", said
    )


def test_a_client_says_at_once_that_a_later_stages_sample_is_too_long(
    table: dict, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    name = handmade.too_long(suite, tmp_path / "data")
    client = LocalClient(1, tmp_path, DataSection(root=str(tmp_path / "data")))
    short = table | {"data": {}, "federation": table["federation"] | {"per_round": 4}}
    short["training"] = table["training"] | {"max_length": 100}
    answer, _ = respond({"do": "hello", "run": "a", "config": short}, {}, client)
    assert answer["unready"] == "FcitError; see the client's own log"
    assert (
        f"max_length: 100 tokens cut off the image or the whole answer of FigureQA sample {name}"
        in (capsys.readouterr().err)
    )


def test_a_node_that_is_not_ready_is_named_and_asked_again_once_it_may_be_mended(
    engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = engine(lambda client, header: update(client))
    one.grid.hello[101] = pack(hello(1, unready="no FigureQA"), {})
    with pytest.raises(FcitError, match="client 1 is not ready for all stages .*no FigureQA"):
        list(one.run(jobs()))
    one.nodes.needs_all = False
    one.nodes.active_since, one.nodes.clients = {}, {}
    replies = {reply.client: reply for reply in one.run(jobs())}
    assert "no FigureQA" in replies[1].detail
    del one.grid.hello[101]
    monkeypatch.setattr(nodes, "AGAIN", 0.0)
    assert [type(reply) for reply in one.run(jobs())] == [Update] * 3


def test_an_operator_is_told_of_every_round_and_who_is_awaited(
    engine, config: Config, tmp_path: Path
) -> None:
    said: list[str] = []
    plan = [[TURNS, TURNS], [TURNS]]
    status = Status(tmp_path, plan, said.append)
    with engine(lambda client, header: update(client), clients=2, status=status) as one:
        list(one.run(jobs()))
        (line,) = said
        assert line.startswith(
            "stage 1, round 2 of 2: training: 2 of 3 clients answered, mean loss 1"
        )
        assert line.endswith("next: the test sets after stage 1 of 2")
        shown = "\n".join(lines(tmp_path))
        assert (
            "answered: 0, 1; at work: none; not connected or not ready: 2; awaited until 20"
            in shown
        )
        begun = time.time()
        assert not finished(tmp_path, begun)
    assert finished(tmp_path, begun)
    assert "finished" in lines(tmp_path)[0]
    with pytest.raises(FcitError), engine(never, status=status):
        raise FcitError("the disk is full; make room")
    first, second = lines(tmp_path)
    assert "ended: the disk is full; make room" in first
    assert second == "no process works on it now; ./run continues it"
    with locked(tmp_path, "run"):
        assert len(lines(tmp_path)) == 1
    with pytest.raises(SystemExit), engine(never, status=status):
        raise SystemExit(0)  # as Flower ends a run that is stopped
    assert ": stopped (since" in lines(tmp_path)[0]


def test_a_full_disk_is_one_line_in_the_log_without_a_traceback() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "run-folder/log.jsonl")
    record = logging.LogRecord("flwr", 40, "", 0, "failed: %s", (1,), (OSError, error, None))
    assert shorten_user_errors(record)
    assert record.getMessage() == "error: run-folder/log.jsonl: No space left on device"
    assert record.exc_info is None


# -- a client's floor --------------------------------------------------------------------------------


def test_a_client_clips_and_noises_what_it_sends_whatever_the_recipe_says(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs()[0]
    grown = Update(0, 5, {"0": {"a": torch.tensor([4.0, 5.0])}}, {}, {"loss": 1.0})
    monkeypatch.setattr("fcit.worker.model.take_turn", lambda *_: (grown, {}))
    monkeypatch.setattr(Experiment, "data", lambda *_: None)
    assert not config.privacy.on

    def sent(**floor: float) -> torch.Tensor:
        privacy = Privacy(clip_norm=1.0, seeded_noise=False, **floor)
        return ModelWorker(config, floor=privacy).train(job, {})[0].adapters["0"]["a"]

    assert torch.allclose(sent(), torch.tensor([1.6, 1.8]))  # the change [3, 4] at length 1
    noised = sent(noise_multiplier=2.0)
    assert not torch.allclose(noised, sent()) and not torch.equal(
        noised, sent(noise_multiplier=2.0)
    )
    zeros = {"0": {"a": torch.zeros(20_000)}}
    many = replace(job, received=replace(job.received, adapters=zeros))
    still = Update(0, 5, zeros, {}, {"loss": 1.0})
    monkeypatch.setattr("fcit.worker.model.take_turn", lambda *_: (still, {}))
    privacy = Privacy(clip_norm=0.5, noise_multiplier=2.0, seeded_noise=False)
    sent_noise = ModelWorker(config, floor=privacy).train(many, {})[0].adapters["0"]["a"]
    assert float(sent_noise.std()) == pytest.approx(1.0, rel=0.05)
    floor = Privacy(clip_norm=1.0, token_noise=0.3, seeded_noise=False)
    assert stronger(Privacy(clip_norm=9.0, token_noise=0.1), floor) == floor
    assert stronger(Privacy(clip_norm=9.0, token_noise=0.5), floor).token_noise == 0.5
    for method, optimizer in (("ewc", "fedavg"), ("finetune", "scaffold")):
        changed = to_table(config)
        changed["method"] = {"name": method}
        changed["federation"] |= {"optimizer": optimizer, "optimizer_options": {}}
        with pytest.raises(FcitError, match="sends more than the change"):
            ModelWorker(validate(changed), floor=floor)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"clip-norm": 1.0}, "there is no 'clip-norm'; choose from client, data"),
        ({"clip_norm": -1.0}, "clip_norm: should be greater than or equal to 0"),
        ({"clip_norm": "much"}, "clip_norm: should be a valid number"),
        ({"noise_multiplier": 1.0}, "set privacy.clip_norm too"),
        ({"client": "3"}, "client is '3'; it must be a number from 0 on"),
        ({"client": True}, "client is True"),
        ({"rules": "near.py"}, "rules: 'near.py' is not DATASET=/path/to/rule.py"),
    ],
)
def test_a_nodes_configuration_is_checked_entry_by_entry(entry: dict, what: str) -> None:
    with pytest.raises(FcitError, match=f"--node-config.*{what}"):
        own_client({"client": 3, "data": "/srv/data"} | entry)
    floor = {"clip_norm": 1, "noise_multiplier": 0.5}
    client = own_client({"client": 3, "data": "/srv/data"} | floor)
    assert client.floor == Privacy(1.0, 0.5, seeded_noise=False)


def test_a_node_says_where_its_client_is() -> None:
    def context(**config: Any) -> Any:
        return SimpleNamespace(node_config=config, run_config={})

    found = local_client(context(client=3, data="/srv/data", images="/a:/b"))
    own = DataSection(root="/srv/data", images=("/a", "/b"))
    assert found == LocalClient(3, Path("/srv/memory"), own)
    assert local_client(context(**{"partition-id": 2}), Path("run")) == LocalClient(
        2, Path("run/clients")
    )
    with pytest.raises(FcitError, match="data is missing"):
        local_client(context(client=3))


def test_a_simulations_clients_keep_their_memories_in_the_runs_folder() -> None:
    given: Any = SimpleNamespace(node_config={"partition-id": 2}, run_config={"out": "~/run"})
    assert local_client(given) == LocalClient(2, Path.home() / "run" / "clients")
    with pytest.raises(FcitError, match="must name the run's folder"):
        local_client(SimpleNamespace(node_config={"partition-id": 2}, run_config={}))  # type: ignore


def test_a_simulation_with_fewer_nodes_than_clients_is_refused(config: Config) -> None:
    def grid(*counts: int) -> Any:
        seen = iter(counts)
        return SimpleNamespace(get_node_ids=lambda: range(next(seen)))

    with pytest.raises(FcitError, match="simulation 2 nodes.*config 'num-supernodes=4'"):
        wait_for_nodes(grid(*[2] * 9), config, patience=0.0)
    wait_for_nodes(grid(0, 2, 4), config)  # Flower starts the server's side before its nodes


# -- choosing an engine --------------------------------------------------------------------------------


def test_flower_is_told_to_tell_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"FLWR_TELEMETRY_ENABLED": "1", "FLWR_LOG_LEVEL": "INFO"})
    hush()
    assert os.environ == {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_LOG_LEVEL": "INFO",
    }


def test_without_flower_one_line_says_what_to_install(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    flower = replace(config, federation=replace(config.federation, engine="flower"))
    monkeypatch.setitem(sys.modules, "flwr.app", None)
    for name in [one for one in sys.modules if one.startswith("fcit.flower")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(FcitError, match=r"pip install 'fcit\[flower\] @ git"):
        build(flower, 1, tmp_path)


def test_a_resumed_run_keeps_the_engine_that_its_memories_are_with(config: Config) -> None:
    with pytest.raises(FcitError, match="engine=flower"):
        check_memory(config, {1: {"turn": torch.tensor([0, 1])}})
    check_memory(config, {1: {"drift": torch.ones(1)}, 2: {}})


def test_a_node_whose_hello_was_lost_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower loses a message to a node that stays connected, as when its time ran out."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    grid: Any = FakeGrid(1, lambda client, header: None)
    found = nodes.Nodes(grid, {"do": "hello"}, 60.0, False)
    grid.hello[100] = Error(5, "node unavailable")
    found.update()
    assert found.of(0) is None
    del grid.hello[100]
    found.update()
    assert grid.asked("hello") == [0]  # not again at once
    monkeypatch.setattr(nodes, "AGAIN", 0.0)
    found.update()
    assert found.of(0) == 100
