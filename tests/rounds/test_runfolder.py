"""A run's folder: whole states or the one before, and a log that knows no uncommitted round."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fcit.files import ASIDE, locked, read_json, sweep_aside, write_json, write_text
from fcit.rounds import records
from fcit.rounds.runfolder import RunFolder
from fcit.rounds.server import Position
from fcit.types import FcitError, State, Weights
from fcit.weights import flatten

FIRST, SECOND = Position(0, 1), Position(0, 2, True)


def state(value: float, adapters: tuple[str, ...] = ("0",)) -> State:
    blocks = {name: {"a": torch.full((2, 3), value + at)} for at, name in enumerate(adapters)}
    extras = {
        "projector": {"w": torch.full((4,), -value), "b": torch.ones(2)},
        "identity": {"tokens": torch.ones(1, 5), "samples": torch.tensor([2**40 + 1])},
    }
    return State(blocks, extras)


OLD, OLD_MEMORY = state(1.0), {3: {"kept": torch.ones(2)}, 11: {"kept": torch.zeros(2)}}
NEW, NEW_MEMORY = state(2.0, ("0", "Math : x")), {3: {"kept": torch.full((2,), 5.0)}}


def same(a: State, b: State) -> bool:
    one, other = flatten(a), flatten(b)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def alike(a: dict[int, Weights], b: dict[int, Weights]) -> bool:
    return same(State(_named(a)), State(_named(b)))


def _named(memory: dict[int, Weights]) -> dict[str, Weights]:
    return {str(client): weights for client, weights in memory.items()}


def files(folder: RunFolder) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.states.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_a_state_and_the_clients_memories_come_back_as_they_were(folder: RunFolder) -> None:
    assert folder.position() is None
    folder.commit(NEW, SECOND, OLD_MEMORY)
    again, memory = RunFolder(folder.path).state()
    assert same(again, NEW)
    assert again.extras["identity"]["samples"].tolist() == [2**40 + 1]
    assert list(again.adapters) == ["0", "Math : x"]
    assert sorted(memory) == [3, 11]
    assert alike(memory, OLD_MEMORY)
    assert folder.position() == SECOND


def test_an_earlier_versions_optimizer_memory_is_not_left_out_silently(folder: RunFolder) -> None:
    folder.commit(OLD, FIRST, {})
    folder.require_resumable()
    path = folder.states / "state.json"
    manifest = read_json(path)
    write_json(path, {**manifest, "optimiser": {}})
    folder.require_resumable()  # FedAvg and FedProx kept nothing
    write_json(
        path, {**manifest, "optimiser": {"adapters.0": "optimiser-adapters.0-1.safetensors"}}
    )
    with pytest.raises(FcitError, match="earlier version of fcit"):
        folder.require_resumable()


def test_what_did_not_change_is_not_written_again(folder: RunFolder) -> None:
    folder.commit(OLD, FIRST, OLD_MEMORY)
    before = files(folder)
    folder.commit(OLD, SECOND, OLD_MEMORY)
    after = files(folder)
    assert before.keys() == after.keys()
    assert {name for name in after if before[name] != after[name]} == {"state.json"}


def test_what_is_no_longer_named_is_removed(folder: RunFolder) -> None:
    folder.commit(NEW, FIRST, NEW_MEMORY)
    folder.commit(OLD, SECOND, {})
    fresh = RunFolder(folder.path.with_name("fresh"))
    fresh.commit(OLD, SECOND, {})
    assert files(folder).keys() == files(fresh).keys()
    assert len(files(folder)) == 1 + 1 + 2  # the manifest, one adapter, two extras


def test_two_names_of_one_content_both_come_back(folder: RunFolder) -> None:
    block = {"a": torch.ones(2)}
    twins = State({"a b": dict(block), "a_b": dict(block)}, {})
    folder.commit(twins, FIRST)
    assert same(folder.state()[0], twins)
    folder.commit(State({"a_b": dict(block)}, {}), FIRST)
    assert same(folder.state()[0], State({"a_b": dict(block)}, {}))


class Killed(BaseException):
    """Stands for kill -9."""


def crash(monkeypatch: pytest.MonkeyPatch, name: str, number: int, late: bool) -> None:
    """Let the `number`-th call of a Path's method end the process, before or after it took effect."""
    real: Callable = getattr(Path, name)
    left = [number]

    def sudden(self: Path, *args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            return None if name == "unlink" else real(self, *args, **kwargs)  # dead: cleans nothing
        if left[0] > 0:
            return real(self, *args, **kwargs)
        if late:
            real(self, *args, **kwargs)
        raise Killed

    monkeypatch.setattr(Path, name, sudden)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["replace", "unlink"])
def test_a_crash_anywhere_leaves_the_old_state_or_the_new_one(
    name: str, late: bool, tmp_path: Path
) -> None:
    start = RunFolder(tmp_path / "start")
    start.commit(OLD, FIRST, OLD_MEMORY)
    seen: list[Position | None] = []
    for number in range(1, 50):
        folder = RunFolder(tmp_path / str(number))
        shutil.copytree(start.path, folder.path)
        with pytest.MonkeyPatch.context() as patch:
            crash(patch, name, number, late)
            try:
                folder.commit(NEW, SECOND, NEW_MEMORY)
                whole = True
            except Killed:
                whole = False
        found, memory = folder.state()
        at = folder.position()
        seen.append(at)
        assert at in (FIRST, SECOND)
        wanted, remembered = (OLD, OLD_MEMORY) if at == FIRST else (NEW, NEW_MEMORY)
        assert same(found, wanted)
        assert alike(memory, remembered)
        sweep_aside(folder.path)
        folder.commit(NEW, SECOND, NEW_MEMORY)
        assert same(folder.state()[0], NEW)
        assert not [one for one in files(folder) if one.startswith(ASIDE)]
        if whole:
            break
    else:
        pytest.fail("every attempt was cut off")
    assert len(seen) > 3, "there was next to nothing to cut off"
    assert seen == sorted(seen, key=lambda one: one == SECOND)  # once new, new for good
    assert FIRST in seen
    assert seen[-1] == SECOND


KEYS = [(1, 1), (1, 2), (2, 1)]


def line(stage: int, number: int) -> dict:
    lists = ("clients", "tasks", "samples", "losses", "subspaces", "bytes_down", "bytes_up")
    return {"stage": stage, "round": number, "seconds": 0.5, **{name: [] for name in lists}}


@pytest.mark.parametrize("kept", range(4))
@pytest.mark.parametrize("cut", [b"", b'{"stage": 2, "rou', "植".encode()[:2]])
def test_the_log_keeps_committed_rounds_alone(kept: int, cut: bytes, folder: RunFolder) -> None:
    folder.path.mkdir()
    for key in KEYS:
        folder.append_log(line(*key))
    with folder.log.open("ab") as file:
        file.write(cut)
    assert [(row.stage, row.round) for row in folder.rounds()] == KEYS
    folder.keep_log(kept)
    folder.append_log(line(9, 9))
    assert [(row.stage, row.round) for row in folder.rounds()] == [*KEYS[:kept], (9, 9)]


@pytest.mark.parametrize(
    ("spoilt", "said"), [(b"\xe9", "not in UTF-8"), (b"\0\0", "not valid JSON")]
)
def test_a_whole_line_of_the_log_that_is_damaged_is_named(
    spoilt: bytes, said: str, folder: RunFolder
) -> None:
    folder.path.mkdir()
    folder.append_log(line(1, 1))
    with folder.log.open("ab") as file:
        file.write(spoilt + b"\n")
    with pytest.raises(FcitError, match=f"log.jsonl.*line 2.*{said}"):
        folder.rounds()


def test_a_state_that_is_read_while_the_next_is_committed_is_one_of_both(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(number: float) -> State:
        return State({"0": {"a": torch.full((2,), number)}}, {"b": {"c": torch.full((2,), number)}})

    folder.path.mkdir()
    folder.commit(state(1.0), Position(0, 1))
    read, seen = RunFolder.tensors, []

    def meanwhile(self: RunFolder, kind: str, *more: Any, **words: Any) -> Any:
        yield from read(self, kind, *more, **words)
        seen.append(kind)
        if len(seen) == 1:
            folder.commit(state(2.0), Position(0, 2))

    monkeypatch.setattr(RunFolder, "tensors", meanwhile)
    found, _ = RunFolder(folder.path).state()
    assert found.adapters["0"]["a"][0] == found.extras["b"]["c"][0] == 2
    assert len(seen) == 5  # of the first commit one kind, then all of the second


def test_a_run_without_log_has_nothing_to_keep(folder: RunFolder) -> None:
    folder.keep_log(1)
    assert not folder.log.exists()


def test_a_folder_is_begun_once_there_is_something_to_lose(folder: RunFolder) -> None:
    assert not folder.begun()
    folder.path.mkdir()
    folder.config.write_text("seed = 0\n")
    assert not folder.begun()
    folder.predictions("zero-shot", "IconQA").parent.mkdir(parents=True)
    assert folder.begun()
    shutil.rmtree(folder.path / "predictions")
    folder.commit(OLD, FIRST)
    assert folder.begun()


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_answers_that_are_replaced_have_their_digest_whenever_the_process_is_killed(
    writes: int, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fcit evaluate` replaces a finished run's answers."""
    folder.begin({"seed": 0})
    folder.keep_answers("1", "IconQA", [{"prediction": "old"}])
    left = [writes]

    def write(path: Path, text: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write_text(path, text)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(records, "write_text", write)
        folder.keep_answers("1", "IconQA", [{"prediction": "new"}])
    folder.check_answers()
    folder.keep_answers("1", "IconQA", [{"prediction": "new"}])
    folder.check_answers()
    answers = folder.predictions("1", "IconQA")
    digest = hashlib.sha256(b'{"prediction": "new"}\n').hexdigest()
    assert records.digest_file(answers).read_text() == f"{digest}  IconQA.jsonl\n"
    answers.write_text('{"prediction": "old"}\n')
    with pytest.raises(FcitError, match=r"IconQA\.jsonl or IconQA\.jsonl\.sha256: was changed"):
        folder.check_answers()


def test_two_processes_do_not_work_on_one_run(folder: RunFolder) -> None:
    pytest.importorskip("fcntl", reason="no such locks on this system")
    folder.path.mkdir()
    with (
        locked(folder.path, "run"),
        pytest.raises(FcitError, match="another fcit"),
        locked(folder.path, "run"),
    ):
        pass
    with locked(folder.path, "run"):
        pass


def test_a_damaged_state_names_its_file(folder: RunFolder) -> None:
    folder.commit(OLD, FIRST)
    (block,) = folder.states.glob("adapters-*.safetensors")
    block.write_bytes(block.read_bytes()[:20])
    with pytest.raises(FcitError, match=block.name):
        folder.state()
    block.unlink()
    with pytest.raises(FcitError, match=block.name):
        folder.state()


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(FcitError, match="no such run folder"):
        RunFolder(tmp_path / "gone").require()
    with pytest.raises(FcitError, match="config.toml"):
        RunFolder(tmp_path).require()
