"""What crosses a wire comes back equal; a broken stream is the end, not a crash."""

from __future__ import annotations

import io
import json
import re
import struct
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from fcit.engines import wire
from fcit.types import Fault, Identity, Job, Score, State, Task, Turn, Update

TURN = Turn(3, Task("Math", ("CLEVR-Math", "TabMWP")), 1, 2)


def there_and_back(header, weights):
    stream = io.BytesIO()
    wire.write_frame(stream, header, weights)
    stream.seek(0)
    found = wire.read_frame(stream)
    assert found is not None
    assert wire.read_frame(stream) is None
    return found


def test_a_job_and_its_clients_memory() -> None:
    state = State({"0": {"a": torch.ones(2)}}, {"projector": {"w": torch.zeros(3)}})
    job, memory = wire.unpack_job(
        *there_and_back(*wire.pack_job(Job(TURN, state, 4), {"old": torch.ones(1)}))
    )
    assert (job.turn, job.epochs) == (TURN, 4)
    assert torch.equal(job.received.adapters["0"]["a"], torch.ones(2))
    assert list(job.received.extras) == ["projector"]
    assert torch.equal(memory["old"], torch.ones(1))


def test_an_update() -> None:
    update = Update(
        3, 17, {"1": {"a": torch.ones(2)}}, {"projector": {"w": torch.ones(1)}}, {"loss": 0.5}
    )
    again = wire.unpack_update(*there_and_back(*wire.pack_update(update, {})))
    assert (again.client, again.samples, again.metrics, again.memory) == (3, 17, {"loss": 0.5}, {})
    assert list(again.adapters) == ["1"]
    assert list(again.extras) == ["projector"]


def test_an_identity_token() -> None:
    token = torch.arange(4.0)
    again = wire.unpack_identity(
        *there_and_back(*wire.pack_identity(Identity(1, "Math", token, 9)))
    )
    assert (again.client, again.task, again.samples) == (1, "Math", 9)
    assert torch.equal(again.token, token)


def test_a_stream_that_breaks_off_is_an_end() -> None:
    stream = io.BytesIO()
    wire.write_frame(stream, {"do": "x"}, {"a": torch.ones(100)})
    whole = stream.getvalue()
    for cut in (0, 7, 16, 20, len(whole) - 1):
        assert wire.read_frame(io.BytesIO(whole[:cut])) is None


def test_a_score() -> None:
    score = Score(2, "IconQA", 250.0, 4)
    assert wire.unpack_score(*there_and_back(asdict(score), {})) == score


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("text", [DEEP, '{"client": ' + DEEP + "}", "[]", "3", "half a", "\xff"])
def test_a_header_that_is_none_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        wire.read_header(text)
    head = text.encode("latin-1")
    stream = io.BytesIO(struct.pack("<QQ", len(head), 0) + head)
    with pytest.raises(ValueError):
        wire.read_frame(stream)


GOOD = {"client": 3, "samples": 17, "metrics": {"loss": 0.5}}
TENSORS = {"adapters/1/a": torch.ones(2)}


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": []},
        {"metrics": {"loss": "0.5"}},
        {"metrics": {"loss": None}},
        {"samples": "17"},
        {"samples": 17.0},
        {"samples": True},
        {"client": "3"},
        {"client": [3]},
        {"client": 4},
        {"tensors": {"adapters/a": torch.ones(2)}},
        {"tensors": {"others/1/a": torch.ones(2)}},
    ],
)
def test_an_update_that_cannot_be_is_garbled(change: dict) -> None:
    assert isinstance(wire.unpack_reply(3, (GOOD, TENSORS), wire.unpack_update), Update)
    tensors = change.get("tensors", TENSORS)
    header = GOOD | {key: value for key, value in change.items() if key != "tensors"}
    found = wire.unpack_reply(3, (header, tensors), wire.unpack_update)
    assert isinstance(found, Fault)
    assert (found.client, found.kind) == (3, "garbled")
    for missing in GOOD:
        less = {key: value for key, value in GOOD.items() if key != missing}
        assert isinstance(wire.unpack_reply(3, (less, TENSORS), wire.unpack_update), Fault)


def test_numbers_past_all_floats_are_left_to_the_judge() -> None:
    header = json.loads('{"client": 3, "samples": 17, "metrics": {"loss": 1' + "0" * 400 + "}}")
    update = wire.unpack_update(header, {})
    assert update.metrics["loss"] == 10**400


@pytest.mark.parametrize(
    "header",
    [
        {"client": 1, "task": 5, "samples": 3},
        {"client": 1, "task": "Math", "samples": None},
        {"client": 1, "task": "Math"},
    ],
)
def test_a_token_or_a_score_that_cannot_be_is_garbled(header: wire.Header) -> None:
    found = wire.unpack_reply(1, (header, {"token": torch.ones(2)}), wire.unpack_identity)
    assert isinstance(found, Fault) and found.kind == "garbled"
    score = {"client": 1, "dataset": "red", "total": 1.0, "count": 1}
    for wrong in ({"total": "1"}, {"count": 1.0}, {"count": "x"}, {"dataset": 3}):
        found = wire.unpack_reply(1, (score | wrong, {}), wire.unpack_score)
        assert isinstance(found, Fault) and found.kind == "garbled"


def said_of(message: str) -> set[str]:
    """The fields that docs/privacy.md names in a message's rows of its table."""
    text = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("|")]
    found, now = set[str](), ""
    for name, field, what in rows:
        now = name.strip() or now
        if now.startswith(message):
            found |= set(re.findall(r"`([^`]+)`", field))
            found |= set(re.findall(r"`(loss|steps)`", what))
    return found


def test_the_page_on_privacy_names_every_field_that_a_client_sends() -> None:
    metrics = {"loss": 0.5, "steps": 3.0}
    weights = {"a": {"w": torch.ones(1)}}
    update = Update(3, 17, weights, weights, metrics, weights)
    header, tensors = wire.pack_update(update, {})
    kinds = {name.partition("/")[0] for name in tensors}
    assert said_of("update") == header.keys() | kinds | metrics.keys() | {"kept"}
    header, tensors = wire.pack_identity(Identity(1, "Math", torch.ones(2), 9))
    assert said_of("identity token") == header.keys() | tensors.keys()
    assert said_of("score") == asdict(Score(2, "IconQA", 250.0, 4)).keys()
