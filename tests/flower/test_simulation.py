"""The store of messages of Flower's simulation: each node gets its own, once and in order."""

from __future__ import annotations

import threading
import time
from unittest.mock import MagicMock

import pytest

pytest.importorskip("flwr")

from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fcit.flower.simulation import Messages, _start_nodes


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch):
    for name in ("_run_id", "_node_id", "_task_id"):  # _start_nodes sets them
        monkeypatch.setattr(TaskIdentity, name, getattr(TaskIdentity, name))
    grid, _ = _start_nodes(3, MagicMock(), threading.Event())
    assert isinstance(grid.state, Messages)
    return grid


def test_a_node_gets_its_own_messages_once_and_in_order(grid) -> None:
    first, second, third = grid.get_node_ids()
    to = [first, second, first, first]
    keys = grid.push_messages([Message(RecordDict(), node, "train", ttl=60.0) for node in to])

    def got(node: int, limit: int | None) -> list[int]:
        found = grid.state.get_message_ins(node, limit)
        assert all(message.metadata.delivered_at for message in found)
        return [keys.index(message.metadata.message_id) for message in found]

    assert got(first, 1) == [0]
    assert got(first, 1) == [2]
    assert got(third, 1) == []
    assert got(second, None) == [1]
    assert got(first, None) == [3]
    assert got(first, 1) == got(second, 1) == []


def test_a_message_whose_time_is_over_is_not_delivered(grid) -> None:
    node, *_ = grid.get_node_ids()
    grid.push_messages([Message(RecordDict(), node, "train", ttl=ttl) for ttl in (1e-3, 60.0)])
    time.sleep(0.01)
    found = [each for _ in range(2) for each in grid.state.get_message_ins(node, 1)]
    assert [each.metadata.ttl for each in found] == [60.0]
