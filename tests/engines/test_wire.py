"""What crosses a wire comes back equal; a broken stream is the end, not a crash."""

from __future__ import annotations

import io

import torch

from fcit.engines import wire
from fcit.types import Identity, Job, State, Task, Turn, Update

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
    again, memory = wire.unpack_update(*there_and_back(*wire.pack_update(update, {})))
    assert (again.client, again.samples, again.metrics, memory) == (3, 17, {"loss": 0.5}, {})
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
